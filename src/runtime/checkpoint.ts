import type { Log } from '../core/connector.ts'
import { MillraceError } from '../core/errors.ts'
import type { Position } from '../core/position.ts'
import type { Queue, StateStore, TopicPartition } from '../core/queue.ts'
import { latestState, type RelayState, statePrefix } from '../core/relay-state.ts'
import {
  CHECKPOINT_LIMITS,
  checkpointKey,
  checkpointOf,
  checkpointPrefix,
  decodeCheckpoint,
  encodeCheckpoint,
  nameFault,
  type SavedCheckpoint,
} from '../core/saved-checkpoint.ts'
import type { ParsedConfig } from './config-schema.ts'
import { openQueue, type Surroundings } from './open.ts'

/** Named checkpoints: moments of the stream that a replay can begin at. Only the queue is connected to. */
export interface Checkpoints {
  /**
   * Saves the relay's latest recorded state, which is at most a few seconds old while the relay runs.
   * @throws MILLRACE_USAGE for a name that cannot be one, MILLRACE_CHECKPOINT_EXISTS, MILLRACE_STATE_MISSING before `init`
   */
  save(name: string): Promise<SavedCheckpoint>
  /** by time, oldest first */
  list(): Promise<readonly SavedCheckpoint[]>
  /** @throws MILLRACE_CHECKPOINT_UNKNOWN */
  show(name: string): Promise<ShownCheckpoint>
  /** @throws MILLRACE_CHECKPOINT_UNKNOWN */
  drop(name: string): Promise<void>
}

export interface ShownCheckpoint extends SavedCheckpoint {
  /** whether the stream is the one that it was saved of; nothing can be replayed from another one's */
  readonly current: boolean
  readonly partitions: readonly CheckpointPlace[]
}

/** What a replay from the checkpoint reads of a partition. */
export interface CheckpointPlace extends TopicPartition {
  /** of the last event before the checkpoint */
  readonly position: Position | null
  /** of the first record after it */
  readonly offset: bigint
  /** whether the queue still holds all that came after; null: the topic is gone */
  readonly retained: boolean | null
}

export function namedCheckpoints(config: () => ParsedConfig, around: Surroundings): Checkpoints {
  async function asking<T>(ask: (queue: Queue, source: string) => Promise<T>): Promise<T> {
    const parsed = config()
    const queue = await openQueue(parsed, around)
    try {
      return await ask(queue, parsed.name)
    } finally {
      await queue.close()
    }
  }

  return {
    save: (name) => asking((queue, source) => saveCheckpoint(queue.state, source, name, around.clock.now())),
    list: () => asking((queue, source) => readCheckpoints(queue.state, source, around.log)),
    show: (name) =>
      asking(async (queue, source) => {
        const saved = await findCheckpoint(queue.state, source, name)
        const state = latestState(await queue.state.read(statePrefix(source)))
        return { ...saved, current: state?.streamId === saved.streamId, partitions: await placesOf(queue, saved) }
      }),
    drop: (name) =>
      asking(async ({ state }, source) => {
        const key = checkpointKey(source, name)
        // one that cannot be read is removed all the same
        if (!(await state.read(key)).has(key)) throw unknown(name)
        await state.remove(key)
      }),
  }
}

/** Those that can be read, oldest first. */
export async function readCheckpoints(
  state: Pick<StateStore, 'read'>,
  source: string,
  log?: Log,
): Promise<readonly SavedCheckpoint[]> {
  return (await storedCheckpoints(state, source, log)).map(({ checkpoint }) => checkpoint)
}

export interface StoredCheckpoint {
  readonly checkpoint: SavedCheckpoint
  readonly bytes: number
}

export async function storedCheckpoints(state: Pick<StateStore, 'read'>, source: string, log?: Log): Promise<StoredCheckpoint[]> {
  const stored: StoredCheckpoint[] = []
  for (const [key, text] of await state.read(checkpointPrefix(source)))
    try {
      stored.push({ checkpoint: decodeCheckpoint(key, text), bytes: key.length + text.length })
    } catch (error) {
      log?.warn({ err: error, key }, 'a checkpoint cannot be read and is passed over')
    }
  return stored.sort((a, b) => a.checkpoint.at - b.checkpoint.at)
}

/** The state that checkpoints are taken of: the tails of a stream that `init` founded. */
export async function relayedState(state: Pick<StateStore, 'read'>, source: string): Promise<RelayState> {
  const latest = latestState(await state.read(statePrefix(source)))
  if (latest !== null) return latest
  throw new MillraceError('MILLRACE_STATE_MISSING', `the queue does not know the stream ${source}: there is nothing to save`, {
    remedy: 'check that the queue is the right one; before the first run: millrace init',
  })
}

async function saveCheckpoint(state: StateStore, source: string, name: string, at: number): Promise<SavedCheckpoint> {
  const fault = nameFault(name)
  if (fault !== null) throw new MillraceError('MILLRACE_USAGE', `a checkpoint cannot be named ${JSON.stringify(name)}: ${fault}`)
  const key = checkpointKey(source, name)
  const existing = await state.read(checkpointPrefix(source))
  if (existing.has(key)) throw exists(name)
  if (existing.size >= CHECKPOINT_LIMITS.automatic + CHECKPOINT_LIMITS.saved)
    throw new MillraceError('MILLRACE_USAGE', `there are ${existing.size} checkpoints already`, {
      remedy: 'drop those that nobody needs: millrace checkpoint list, millrace checkpoint drop NAME',
    })
  const checkpoint = checkpointOf(await relayedState(state, source), name, at, false)
  const text = encodeCheckpoint(checkpoint)
  await state.write(key, text)
  // two people, one name: who wrote last has it
  if ((await state.read(key)).get(key) !== text) throw exists(name)
  return checkpoint
}

async function findCheckpoint(state: StateStore, source: string, name: string): Promise<SavedCheckpoint> {
  const key = checkpointKey(source, name)
  const text = (await state.read(key)).get(key)
  if (text === undefined) throw unknown(name)
  return decodeCheckpoint(key, text)
}

async function placesOf(queue: Queue, { topics }: SavedCheckpoint): Promise<readonly CheckpointPlace[]> {
  const existing = await queue.topics([...topics.keys()])
  const places: CheckpointPlace[] = []
  for (const [topic, tails] of topics) {
    const logs = existing.has(topic) ? await queue.ranges(topic) : []
    for (const [partition, tail] of tails.entries()) {
      const log = logs[partition]
      const offset = tail.offset + 1n
      const retained = log === undefined ? null : offset >= log.start && offset <= log.end
      places.push({ topic, partition, position: tail.position, offset, retained })
    }
  }
  return places
}

const unknown = (name: string): MillraceError =>
  new MillraceError('MILLRACE_CHECKPOINT_UNKNOWN', `there is no checkpoint ${name}`, {
    remedy: 'millrace checkpoint list names those there are',
    fields: { checkpoint: name },
  })

const exists = (name: string): MillraceError =>
  new MillraceError('MILLRACE_CHECKPOINT_EXISTS', `there is a checkpoint ${name} already`, {
    remedy: `take another name, or: millrace checkpoint drop ${name}`,
    fields: { checkpoint: name },
  })
