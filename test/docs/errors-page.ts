import { writeFileSync } from 'node:fs'
import { CODES } from '../../src/core/errors.ts'
import { type Policy, RULES } from '../../src/core/policy.ts'

const DONE: Readonly<Record<Policy, string>> = {
  retry: 'Ended and begun again from durable state, with jittered backoff, for ever.',
  'retry-slowly': 'The same, 5 to 60 seconds apart: a person must probably act. Secrets are read again each time.',
  park: 'The event and what follows of its key wait in the sink; everything else flows on. A sink that cannot park halts the partition.',
  halt: 'The relay ends its process (exit 4); a partition of a sink stays halted in the living process, and the others flow on.',
  refuse: 'The call or the command fails, and nothing was done.',
}

/** `docs/errors.md`, from the table that the code itself goes by. */
export function errorsPage(): string {
  const policies = (Object.keys(DONE) as Policy[]).map((policy) => `| **${policy}** | ${DONE[policy]} |`)
  const codes = CODES.map((code) => {
    const { policy, means, remedy } = RULES[code]
    return `| \`${code}\` | ${policy} | ${means} | ${remedy} |`
  })
  return `# Errors

<!-- written by \`npm run docs\` from src/core/policy.ts -->

Every error has a code from this list. Codes are never renamed; match on them. The message says what happened and where, \`remedy\` what to
do in the case at hand; neither ever holds a payload or a secret.

| what is done | |
|---|---|
${policies.join('\n')}

| code | done | what it means | what you do |
|---|---|---|---|
${codes.join('\n')}
`
}

if (import.meta.main) writeFileSync(new URL('../../docs/errors.md', import.meta.url), errorsPage())
