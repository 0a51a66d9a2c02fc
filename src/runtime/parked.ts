import { hostname, userInfo } from 'node:os'
import { MillraceError } from '../core/errors.ts'
import type { Position } from '../core/position.ts'
import type { Audit, AuditRecord, KeyPlace, ParkedKey, ParkedTotals, Parking, Redriven, StoredParkedEvent } from '../core/sink.ts'
import type { ParsedConfig } from './config-schema.ts'
import { prepareSink, type Surroundings } from './open.ts'

/** What people do about the parked keys of a sink, while its pipeline runs or not. Only the sink's store is connected to. */
export interface ParkedKeys {
  /** by the time they were parked first */
  list(options?: { readonly limit?: number }): Promise<ParkedList>
  /**
   * The first events of a key, in order; of each place where it waits: two topics may use the same ordering key.
   * @param key as `list` has it in `order`; what `name:` of the config and a slash begin may be left out
   * @throws MILLRACE_NOT_PARKED
   */
  show(key: string, options?: { readonly limit?: number }): Promise<readonly ParkedKeyEvents[]>
  /** @throws MILLRACE_NOT_PARKED */
  redrive(key: string, by?: By): Promise<readonly RedrivenKey[]>
  /** Every key, again and again while one of them gets on: an event may wait for what another key brings. */
  redriveAll(by?: By): Promise<readonly RedrivenKey[]>
  /**
   * Gives up the first event of a key for good, and redrives the rest.
   * @param position of that event: what was looked at is what is given up
   * @throws MILLRACE_NOT_PARKED
   */
  skip(key: string, position: Position, by?: By): Promise<RedrivenKey>
  /** what was done, latest first */
  audit(options?: { readonly limit?: number }): Promise<readonly AuditRecord[]>
}

export interface ParkedList {
  readonly totals: ParkedTotals
  readonly keys: readonly ParkedKey[]
}

export interface ParkedKeyEvents extends ParkedKey {
  readonly first: readonly StoredParkedEvent[]
}

export interface RedrivenKey extends KeyPlace, Redriven {}

/** For the audit record. Default: the user of the system and the host, no note. */
export type By = Partial<Audit>

const LIMIT = 1_000
/** no sink parks more keys */
const ALL = 10_000
const EVENTS = 20

export function parkedKeys(name: string, config: () => ParsedConfig, around: Surroundings): ParkedKeys {
  async function asking<T>(ask: (parking: Parking) => Promise<T>): Promise<T> {
    const sink = await (await prepareSink(config(), name, around)).open()
    try {
      if (sink.parking === null)
        throw new MillraceError('MILLRACE_USAGE', `the sink ${name} parks nothing: what it cannot apply halts its partition`)
      return await ask(sink.parking)
    } finally {
      await sink.close()
    }
  }

  async function found(parking: Parking, key: string): Promise<readonly ParkedKey[]> {
    const wanted = new Set([key, `${config().name}/${key}`])
    const keys = (await parking.keys(ALL)).filter(({ order }) => wanted.has(order) || printable(order) === key)
    if (keys.length > 0) return keys
    throw new MillraceError('MILLRACE_NOT_PARKED', `the sink ${name} has not parked the key ${printable(key)}`, {
      remedy: `millrace parked list ${name} names the keys that are parked`,
      fields: { sink: name },
    })
  }

  return {
    list: ({ limit = LIMIT } = {}) =>
      asking(async (parking) => ({ totals: await parking.totals(), keys: await parking.keys(limit) })),

    show: (key, { limit = EVENTS } = {}) =>
      asking(async (parking) => {
        const shown: ParkedKeyEvents[] = []
        for (const one of await found(parking, key)) shown.push({ ...one, first: await parking.events(one, limit) })
        return shown
      }),

    redrive: (key, by) =>
      asking(async (parking) => {
        const redriven: RedrivenKey[] = []
        for (const one of await found(parking, key)) redriven.push(resultOf(one, await parking.redrive(one, byWhom(by))))
        return redriven
      }),

    redriveAll: (by) => asking((parking) => redriveAll(parking, byWhom(by))),

    skip: (key, position, by) =>
      asking(async (parking) => {
        const keys = await found(parking, key)
        const one = keys.find((each) => each.position === position) ?? (keys[0] as ParkedKey)
        return resultOf(one, await parking.skip(one, position, byWhom(by)))
      }),

    audit: ({ limit = LIMIT } = {}) => asking((parking) => parking.audit(limit)),
  }
}

async function redriveAll(parking: Parking, by: Audit): Promise<readonly RedrivenKey[]> {
  const results = new Map<string, RedrivenKey>()
  for (let moved = true; moved; ) {
    moved = false
    for (const key of await parking.keys(ALL)) {
      const place = JSON.stringify([key.topic, key.partition, key.order])
      let result: Redriven
      try {
        result = await parking.redrive(key, by)
      } catch (error) {
        // another one has redriven it
        if (error instanceof MillraceError && error.code === 'MILLRACE_NOT_PARKED') continue
        throw error
      }
      moved ||= result.applied > 0
      results.set(place, resultOf(key, { ...result, applied: result.applied + (results.get(place)?.applied ?? 0) }))
    }
  }
  return [...results.values()]
}

function resultOf({ topic, partition, order }: KeyPlace, redriven: Redriven): RedrivenKey {
  return { topic, partition, order, ...redriven }
}

function byWhom({ actor, note = null }: By = {}): Audit {
  return { actor: actor ?? `${user()}@${hostname()}`, note }
}

function user(): string {
  try {
    return userInfo().username
  } catch {
    // a container's user need not have a name
    return `uid ${process.getuid?.() ?? 'unknown'}`
  }
}

/** A text for a terminal's one line: what would move the cursor, hide or turn text around is written as an escape. */
export function printable(text: string): string {
  return text.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, (character) => `\\u{${(character.codePointAt(0) as number).toString(16)}}`)
}
