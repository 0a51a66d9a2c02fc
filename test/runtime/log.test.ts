import { describe, expect, test } from 'vitest'
import { MillraceError } from '../../src/core/errors.ts'
import { createLog, describeError } from '../../src/runtime/log.ts'
import { redacted, Secrets } from '../../src/runtime/secrets.ts'

const CANARY = 'Canary-5ecret!'

function logOf(secrets: Secrets, pretty = false): { lines: string[]; log: ReturnType<typeof createLog> } {
  const lines: string[] = []
  return { lines, log: createLog({ level: 'debug', secrets, pretty, write: (line) => void lines.push(line) }) }
}

describe('no line shows a secret', () => {
  test.each([false, true])('whoever put it there (for people: %s)', (pretty) => {
    const secrets = new Secrets()
    secrets.learn('password', CANARY)
    secrets.learn('url', 'postgres://relay:Quoted%22Pass1@db/shop')
    secrets.learn('key', '-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n')
    const { lines, log } = logOf(secrets, pretty)
    log.info({ url: `postgres://relay:${CANARY}@db/shop` }, `connecting with ${CANARY}`)
    log.child({ sink: CANARY }).warn({ err: new Error(`refused: ${CANARY}`) }, 'refused')
    log.error(
      {
        err: new MillraceError('MILLRACE_INTERNAL', CANARY, { remedy: CANARY, fields: { at: CANARY }, cause: new Error(CANARY) }),
      },
      'failed',
    )
    log.error(
      { detail: 'Quoted"Pass1 and Quoted%22Pass1', pem: '-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n' },
      'failed',
    )
    log.error({}, 'postgres://somebody:Unknown4Us@elsewhere/db')
    expect(lines).toHaveLength(5)
    expect(lines.join('')).not.toMatch(/5ecret|Pass1|MIIB|Unknown4Us/)
    expect(lines.join('')).toContain('[redacted]')
  })

  test('but a password that is an ordinary word does not make every line unreadable', () => {
    const secrets = new Secrets()
    secrets.learn('password', 'postgres')
    secrets.learn('password', 'abc')
    expect(secrets.scrub('postgres says abc')).toBe('postgres says abc')
  })

  test('a config for people has none', () => {
    const secrets = new Secrets()
    const shown = redacted(
      {
        source: { url: `postgres://u:${CANARY}@h/d`, password: () => CANARY },
        queue: { sasl: { password: CANARY, username: 'relay' } },
        n: 1n,
      },
      secrets,
    )
    expect(shown).toEqual({
      source: { url: 'postgres://u:[redacted]@h/d', password: '[function]' },
      queue: { sasl: { password: '[redacted]', username: 'relay' } },
      n: '1',
    })
  })
})

describe('an error is described without the data it was about', () => {
  test('the row in a constraint violation stays out', () => {
    const violation = Object.assign(new Error('duplicate key value violates unique constraint "orders_email"'), {
      code: '23505',
      detail: 'Key (email)=(ada@example.com) already exists.',
      table: 'orders',
      constraint: 'orders_email',
    })
    const invalid = Object.assign(new Error('invalid input syntax for type integer: "ada@example.com"'), { code: '22P02' })
    const text = JSON.stringify([
      describeError(violation),
      describeError(new MillraceError('MILLRACE_EVENT_REJECTED', 'no', { cause: invalid })),
    ])
    expect(text).not.toContain('ada@example.com')
    expect(text).toContain('"constraint":"orders_email"')
    expect(text).toContain('"code":"22P02"')
  })

  test('one of ours says its code, its fields and what to do', () => {
    const error = new MillraceError('MILLRACE_GAP', 'a gap', {
      remedy: 'decide',
      fields: { topic: 't', partition: 1 },
      cause: new Error('why'),
    })
    expect(describeError(error)).toEqual({
      code: 'MILLRACE_GAP',
      message: 'a gap',
      remedy: 'decide',
      topic: 't',
      partition: 1,
      cause: { message: 'why' },
    })
  })
})

test('a line is JSON with its time, its level as a word and its fields', () => {
  const { lines, log } = logOf(new Secrets())
  log.child({ sink: 'warehouse' }).warn({ attempts: 2 }, 'trying again')
  expect(JSON.parse(lines[0] as string)).toEqual({
    level: 'warn',
    time: expect.stringMatching(/^\d{4}-.*Z$/),
    sink: 'warehouse',
    attempts: 2,
    msg: 'trying again',
  })
})
