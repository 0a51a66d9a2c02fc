import { cpus } from 'node:os'
import type { Judged } from './gate.ts'
import { isSimulation, nameOf } from './mutant.ts'

/** docs/mutants.md: which bug was planted where, and what caught it. */
export function mutantsPage(
  judged: readonly Judged[],
  { began, seconds }: { readonly began: Date; readonly seconds: number },
): string {
  const caught = judged.filter(({ verdict }) => verdict.found === 'failure').length
  const simulated = judged.filter(({ mutant, verdict }) => isSimulation(mutant.caughtBy) && verdict.found === 'failure').length
  const lines = judged.map(({ mutant, verdict, seconds }) => {
    const { bug, harm, file, caughtBy } = mutant
    const by = isSimulation(caughtBy) ? nameOf(caughtBy) : `${caughtBy.name} (\`${caughtBy.file}\`)`
    const cells = [bug, harm, `\`${file}\``, verdict.found === 'failure' ? by : '**nothing**', `${seconds.toFixed(1)} s`]
    return `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`
  })
  return `# Planted bugs

<!-- written by \`npm run mutants\`: run it again rather than edit this -->

A test suite is worth what it catches. \`npm run mutants\` plants each of these bugs, one at a time, in a copy of the working tree, and fails
unless the test that is named for it, green without the bug, fails for it: by an assertion, not because the program broke. What is shipped
knows nothing of them: they are data in \`test/mutants/planted\`. A schedule of the simulation counts only if it keeps every promise without the
bug. (i) to (iv) are the checks by which a relay notices that its queue has lost what it had acknowledged.

**${caught} of ${judged.length} were caught, ${simulated} of them by the simulation alone**, on ${began.toISOString().slice(0, 10)} in ${seconds} seconds on ${cpus().length} cores.

| the bug | what it does | planted in | caught by | in |
|---|---|---|---|---|
${lines.join('\n')}

Not planted yet: replay without the lock of the partition, because there is no replay yet; the lock that a redrive of parked keys takes is
the same, and is among these.
`
}
