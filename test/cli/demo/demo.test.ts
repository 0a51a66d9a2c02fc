import { chmod, mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Kafka, logLevel } from 'kafkajs'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { sharedKafka } from '../../support/kafka.ts'
import { requires } from '../../support/requires.ts'
import { millrace, type Program } from '../millrace.ts'

let home: string
beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'millrace-demo-test-'))
  // open to the server's own user, as the system's temporary folder is
  await chmod(home, 0o755)
})
afterEach(() => rm(home, { recursive: true, force: true }))

const demo = (...args: readonly string[]): Program => millrace(['demo', ...args], { cwd: home, env: { TMPDIR: home } })

test('the replica is equal to what the shop committed, and nothing is left behind', async () => {
  const { code, stdout } = await demo('--events', '400').finished
  expect(stdout).toMatch(/written 400 {2}relayed 400 {2}applied 400 {2}lag 0 ms/)
  expect(stdout).toMatch(/orders {3}\d+ equal {3}0 different {3}0 missing {3}0 extra/)
  expect(stdout).toContain('✓ The replica is equal to what the shop committed. 400 events')
  expect(code).toBe(0)
  expect(await readdir(home)).toEqual([])
})

test('the shop closes after --seconds, whatever it has written', async () => {
  const { code, stdout } = await demo('--events', '99999999', '--seconds', '1').finished
  expect(stdout).toContain('The replica is equal')
  expect(code).toBe(0)
})

test('Ctrl-C ends it, not as a success, and it cleans up', async () => {
  const program = demo('--events', '99999999')
  await program.printed(/written/)
  program.signal('SIGINT')
  const { code, stdout } = await program.finished
  expect(stdout).toContain('Interrupted; cleaning up.')
  expect(code).toBe(1)
  expect(await readdir(home)).toEqual([])
})

requires('kafka')('the demo over Kafka', () => {
  test('ends equal, and leaves no topic and no group in the broker', async () => {
    const brokers = await sharedKafka()
    const { code, stdout } = await demo('--events', '400', '--kafka', brokers.join(',')).finished
    expect(stdout).toContain('The replica is equal')
    expect(code).toBe(0)
    const name = /millrace_(demo_\w+)/.exec(stdout)?.[1] as string
    const admin = new Kafka({ brokers, logLevel: logLevel.NOTHING }).admin()
    await admin.connect()
    const left = [...(await admin.listTopics()), ...(await admin.listGroups()).groups.map((group) => group.groupId)]
    await admin.disconnect()
    expect(left.filter((one) => one.includes(name))).toEqual([])
  })
})
