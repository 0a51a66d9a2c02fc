import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { errorsPage } from './errors-page.ts'

test('docs/errors.md says what the code does (npm run docs writes it)', () => {
  expect(readFileSync(new URL('../../docs/errors.md', import.meta.url), 'utf8')).toBe(errorsPage())
})
