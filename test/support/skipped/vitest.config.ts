import { defineConfig } from 'vitest/config'
import type { Machine } from '../machine.ts'
import { SkippedReporter } from '../skipped-reporter.ts'

const NOTHING: Machine = {
  kafka: 'Kafka',
  'own-kafka': 'Kafka',
  java: 'Java',
  maven: 'Maven',
  docker: 'Docker',
  'docker-compose': 'docker-compose',
  postgres15: 'Postgres 15',
}

/** A run on a machine that has Docker and nothing else, for `../requires.test.ts`. */
export default defineConfig({
  test: {
    root: import.meta.dirname,
    include: ['*.fixture.ts'],
    provide: {
      machine: { ...NOTHING, kafka: 'Kafka (no Docker, and no Java)', docker: null },
    },
    reporters: ['default', new SkippedReporter()],
  },
})
