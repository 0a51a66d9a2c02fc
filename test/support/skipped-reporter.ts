import type { Reporter, TestCase, TestModule, TestSuite, Vitest } from 'vitest/node'

/**
 * Says at the end of a run, loudly, what did not run and why; with `CI` set, a run that skipped anything fails. What a name
 * filter on the command line leaves out is not meant, nor what was not reached because its set-up failed.
 */
export class SkippedReporter implements Reporter {
  #filtered = false

  onInit(vitest: Vitest): void {
    this.#filtered = vitest.config.testNamePattern !== undefined
  }

  onTestRunEnd(modules: readonly TestModule[]): void {
    const lines = new Set(
      modules.flatMap((module) => [...module.children.allTests('skipped')].flatMap((test) => this.#line(test))),
    )
    if (lines.size === 0) return
    const fails = Boolean(process.env['CI'])
    if (fails) process.exitCode = 1
    const headline = fails ? 'FAILED: with CI set nothing may be skipped' : 'This run is not complete'
    console.error(`\n${headline}\n${[...lines].join('\n')}\n`)
  }

  #line(test: TestCase): string[] {
    const suite = lackingSuite(test)
    if (suite) return [`  SKIPPED ${test.module.relativeModuleId} > ${suite.fullName}: ${suite.meta().lacks}`]
    return this.#filtered || !setUp(test) ? [] : [`  SKIPPED ${test.module.relativeModuleId} > ${test.fullName}`]
  }
}

function lackingSuite(test: TestCase): TestSuite | null {
  for (let at = test.parent; at.type === 'suite'; at = at.parent) if (at.meta().lacks !== undefined) return at
  return null
}

function setUp(test: TestCase): boolean {
  for (let at = test.parent; ; at = at.parent) {
    if (at.errors().length > 0) return false
    if (at.type === 'module') return true
  }
}
