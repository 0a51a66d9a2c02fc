import { expect, test } from 'vitest'
import { codeOf } from '../../src/core/errors.ts'
import type { Event } from '../../src/core/event.ts'
import { type Position, parsePosition, position } from '../../src/core/position.ts'
import type { Queue, StoredRecord } from '../../src/core/queue.ts'
import { toRecord } from '../../src/core/record.ts'
import type { RelayState, Tail } from '../../src/core/relay-state.ts'
import { checkpointOf, type SavedCheckpoint } from '../../src/core/saved-checkpoint.ts'
import { CLOCK_MARGIN } from '../../src/pipeline/replay-log.ts'
import { isCutShort, isHole, type PartitionRange, resolveRange, selects } from '../../src/pipeline/replay-range.ts'
import { state as someState } from '../core/stream.ts'

/**
 * Random logs of one partition: two sources, foreign records, late runs of relays that were replaced, retention, clocks that
 * disagree and are set back. Whatever a range is asked for, what it selects is exactly what was meant, or it is refused.
 */

const SCHEDULES = 4_000
const SOURCES = ['shop', 'other'] as const
const TOPIC = 'outbox.event.order'
const NOON = 1_795_000_000_000

type Random = () => number

function randomOf(seed: number): Random {
  let at = seed >>> 0
  return () => {
    at = (at + 0x6d2b79f5) >>> 0
    let t = at
    t = Math.imul(t ^ (t >>> 15), t | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 0x1_0000_0000
  }
}

interface Schedule {
  readonly log: readonly StoredRecord[]
  readonly start: number
  /** by source: all that was ever published here, in commit order */
  readonly chains: ReadonlyMap<string, readonly Event[]>
  readonly checkpoints: readonly SavedCheckpoint[]
  readonly state: RelayState
  readonly now: number
}

function schedule(random: Random): Schedule {
  const below = (n: number): number => Math.floor(random() * n)
  const log: StoredRecord[] = []
  const chains = new Map<string, Event[]>(SOURCES.map((source) => [source, []]))
  const checkpoints: SavedCheckpoint[] = []
  const skew = { database: (random() - 0.5) * 0.8 * CLOCK_MARGIN, relay: (random() - 0.5) * 0.8 * CLOCK_MARGIN }
  const pace = 10 ** (2 + below(4))
  let now = NOON
  let lsn = 0x1000n
  let tail: Tail = { position: null, offset: -1n }

  const append = (event: Event | null): void => {
    const { key, value, headers } = event === null ? { key: null, value: null, headers: [] } : toRecord(event)
    log.push({
      offset: BigInt(log.length),
      timestamp: Math.floor(now + skew.relay),
      key,
      value,
      headers: headers.map(([name, text]) => [name, Buffer.from(text)] as const),
    })
  }
  const stateNow = (): RelayState => ({ ...someState, intent: lsn, topics: new Map([[TOPIC, [tail]]]) })

  for (let step = 5 + below(40); step > 0; step--) {
    now += below(pace)
    const what = random()
    const source = random() < 0.85 ? 'shop' : 'other'
    const chain = chains.get(source) as Event[]
    if (what < 0.6) {
      if (random() < 0.6) lsn += 16n
      const before = chain.at(-1)
      const after = before === undefined ? null : parsePosition(before.position)
      const at = position(1, lsn, after?.commitLsn === lsn ? after.index + 1 : 1)
      const event: Event = {
        source,
        position: at,
        prev: before?.position ?? null,
        id: `${source}-${chain.length}`,
        type: 'Put',
        key: Buffer.from(`k${below(5)}`),
        value: Buffer.from('{}'),
        headers: [],
        // a little out of order, and now and then the clock was set back
        committedAt: Math.floor(now + skew.database - (random() < 0.1 ? below(5 * pace) : below(3))),
        version: '1',
        orderingKey: null,
        placeholder: random() < 0.05 ? 'MILLRACE_EVENT_TOO_LARGE' : null,
      }
      chain.push(event)
      append(event)
      if (source === 'shop') tail = { position: at, offset: BigInt(log.length - 1) }
    } else if (what < 0.7 && chain.length > 0) {
      // a late request of a relay that was replaced
      const from = below(chain.length)
      for (const event of chain.slice(from, from + 1 + below(4))) append(event)
    } else if (what < 0.78) append(null)
    else if (what < 0.9) checkpoints.push(checkpointOf(stateNow(), `c${checkpoints.length}`, now, random() < 0.5))
  }
  lsn += 16n
  now += 2 * CLOCK_MARGIN
  return { log, start: random() < 0.5 ? 0 : below(log.length + 1), chains, checkpoints, state: stateNow(), now }
}

const queueOf = ({ log, start }: Schedule): Pick<Queue, 'ranges' | 'offsetAt' | 'read'> => ({
  ranges: async () => [{ start: BigInt(start), end: BigInt(log.length) }],
  offsetAt: async (_topic, _partition, time) =>
    BigInt(log.findIndex(({ timestamp }, offset) => offset >= start && timestamp >= time) + 1 || log.length + 1) - 1n,
  async *read(_place, range) {
    if (range.start < BigInt(start)) throw new Error(`read from ${range.start}, and the log begins at ${start}`)
    yield log.slice(Number(range.start), Number(range.end))
  },
})

const eventAt = (chains: Schedule['chains'], source: string, at: Position | undefined): Event | undefined =>
  at === undefined ? undefined : chains.get(source)?.find((event) => event.position === at)

/** what the range selects as it is read, each first occurrence in order; null: a hole shows */
function readRange(
  range: PartitionRange,
  { log, chains }: Schedule,
  end: bigint,
  applied: ReadonlyMap<string, Position>,
): readonly Event[] | null {
  const at = new Map<string, Position>()
  const selected: Event[] = []
  for (const { headers, offset } of log.slice(Number(range.start), Number(end))) {
    const header = (name: string): string | undefined => headers.find(([own]) => own === name)?.[1].toString()
    const source = header('millrace-source')
    if (source === undefined) continue
    const event = eventAt(chains, source, header('millrace-position') as Position) as Event
    const stood = at.get(source) ?? null
    if (stood !== null && event.position <= stood) continue
    if (event.prev !== stood && isHole(range, { event, at: stood })) return null
    at.set(source, event.position)
    if (selects(range, event) && offset < range.end) selected.push(event)
  }
  return isCutShort(range, at, applied) ? null : selected
}

test('a range selects exactly what is meant, or is refused, whatever stands in the log', async () => {
  let refused = 0
  let holes = 0
  let judged = 0
  for (let seed = 1; seed <= SCHEDULES; seed++) {
    const random = randomOf(seed)
    const world = schedule(random)
    const end = BigInt(world.start + Math.floor(random() * (world.log.length - world.start + 1)))
    // what the sink has applied of the log up to there
    const applied = new Map<string, readonly Event[]>()
    for (const [source, chain] of world.chains) {
      const seen = world.log
        .slice(0, Number(end))
        .flatMap(({ headers }) =>
          headers
            .filter(
              ([name]) =>
                name === 'millrace-position' &&
                headers.some(([other, value]) => other === 'millrace-source' && value.toString() === source),
            )
            .map(([, value]) => value.toString()),
        )
      const last = seen.sort().at(-1)
      applied.set(source, last === undefined ? [] : chain.filter((event) => event.position <= last))
    }
    const positions = new Map(
      [...applied].flatMap(([source, chain]) =>
        chain.length === 0 ? [] : [[source, (chain.at(-1) as Event).position] as const],
      ),
    )
    const asked = ask(random, world)
    const toAsked = random() < 0.4 ? ask(random, world) : null

    const meantOf = (source: string): readonly Event[] => {
      const chain = applied.get(source) ?? []
      const first = asked.first(chain, source)
      const last = toAsked === null ? chain.length : toAsked.beyond(chain, source)
      return chain.slice(first, Math.max(last, first))
    }
    const meant = SOURCES.flatMap(meantOf)
    try {
      const range = await resolveRange(
        { from: asked.text, to: toAsked?.text ?? null },
        {
          queue: queueOf(world),
          source: 'shop',
          places: [{ topic: TOPIC, partition: 0, end, positions }],
          checkpoints: world.checkpoints,
          state: world.state,
          now: world.now,
        },
      )
      const partition = range.partitions[0] as PartitionRange
      const selected = readRange(partition, world, end, positions)
      if (selected === null) holes++
      else if (range.unproven.length === 0) {
        judged++
        const ids = (events: readonly Event[]): readonly string[] => events.map(({ id }) => id).sort()
        expect({ seed, from: asked.text, to: toAsked?.text, selected: ids(selected) }).toEqual({
          seed,
          from: asked.text,
          to: toAsked?.text,
          selected: ids(meant),
        })
      }
      if (world.start === 0)
        expect({ seed, hole: selected === null, unproven: range.unproven }).toEqual({ seed, hole: false, unproven: [] })
    } catch (error) {
      if (codeOf(error) !== 'MILLRACE_REPLAY_REFUSED') throw new Error(`seed ${seed}`, { cause: error })
      refused++
      if ((error as Error).message.includes('retains:'))
        expect({ seed, start: world.start, asked: asked.text }).not.toMatchObject({ start: 0 })
    }
  }
  // the schedules are such that something is tried
  expect(judged).toBeGreaterThan(SCHEDULES / 3)
  expect(refused).toBeGreaterThan(SCHEDULES / 50)
  expect(holes).toBeGreaterThan(3)
}, 120_000)

interface Asked {
  readonly text: string
  /** the index of the chain's first event that is meant, and of the first that is meant no more */
  first(chain: readonly Event[], source: string): number
  beyond(chain: readonly Event[], source: string): number
}

const indexOf = (chain: readonly Event[], is: (event: Event) => boolean): number => {
  const index = chain.findIndex(is)
  return index === -1 ? chain.length : index
}

function ask(random: Random, { chains, checkpoints, now }: Schedule): Asked {
  const shop = chains.get('shop') as readonly Event[]
  const some = <T>(list: readonly T[]): T | undefined => list[Math.floor(random() * list.length)]
  const own = (text: string, from: (event: Event) => boolean, beyond: (event: Event) => boolean): Asked => ({
    text,
    first: (chain, source) => (source === 'shop' ? indexOf(chain, from) : chain.length),
    beyond: (chain, source) => (source === 'shop' ? indexOf(chain, beyond) : 0),
  })
  const what = random()
  const event = some(shop)
  const checkpoint = some(checkpoints)
  if (what < 0.3 && event !== undefined)
    return own(
      event.position,
      ({ position }) => position >= event.position,
      ({ position }) => position > event.position,
    )
  if (what < 0.4 && event !== undefined) {
    const { commitLsn } = parsePosition(event.position)
    return own(
      `0/${commitLsn.toString(16)}`,
      ({ position }) => parsePosition(position).commitLsn >= commitLsn,
      ({ position }) => parsePosition(position).commitLsn > commitLsn,
    )
  }
  if (what < 0.6 && checkpoint !== undefined) {
    const at = checkpoint.topics.get(TOPIC)?.[0]?.position ?? null
    return own(
      checkpoint.name,
      ({ position }) => at === null || position > at,
      ({ position }) => at === null || position > at,
    )
  }
  if (what < 0.7 && event !== undefined)
    return own(
      `event:${event.id}`,
      ({ position }) => position >= event.position,
      ({ position }) => position > event.position,
    )
  const time = NOON + Math.floor((random() * 1.2 - 0.1) * (now - NOON))
  return {
    text: new Date(time).toISOString(),
    first: (chain) => indexOf(chain, ({ committedAt }) => committedAt >= time),
    beyond: (chain) => indexOf(chain, ({ committedAt }) => committedAt > time),
  }
}
