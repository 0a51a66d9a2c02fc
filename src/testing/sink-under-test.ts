import type { Event } from '../core/event.ts'
import type { TopicPartition } from '../core/queue.ts'
import type { Sink, SinkTraits } from '../core/sink.ts'
import { type EventStream, eventStream } from './events.ts'

/** One sink under test: what the contract needs of its store, beside the contract itself. */
export interface SinkUnderTest {
  /** opens the same sink again, as another process would: the same name, the same store */
  open(): Promise<Sink>
  /** a topic that it follows */
  readonly topic: string
  /** an event that writes the row of a key, and one that removes it (it has no payload) */
  readonly types: { readonly write: string; readonly remove: string }
  /** the payload that gives the key's row this text */
  payload(key: string, text: string): unknown
  /** what the store shows: text by key */
  rows(): Promise<ReadonlyMap<string, string>>
  /** an event's payload that the store cannot take; absent: it takes whatever comes */
  readonly unfit?: ((key: string) => unknown) | null
  /** for a sink that parks: makes the store refuse, or take again, a row whose text is {@link UNFIT} */
  readonly refusing?: ((refused: boolean) => Promise<void>) | null
  /** for a sink that delivers again: the ids of what it delivered marked as replayed, in that order */
  readonly replayed?: (() => Promise<readonly string[]>) | null
  /** for a sink with copies: gives a key's row this text, or removes it (null), behind the sink's back: its guard stays as it was */
  readonly damage?: ((key: string, text: string | null) => Promise<void>) | null
  /** ends the store */
  remove(): Promise<void>
}

export const UNFIT = 'unfit'

/** What the sink says that it does. Each is held against the sink: what it does not promise is not asked of it. */
export interface SinkPromises {
  readonly effect: SinkTraits['effect']
  /** `traits.checkpoints` */
  readonly checkpoints: boolean
  /** it has `parking` */
  readonly parking: boolean
  /** it has `redeliver` */
  readonly redeliver: boolean
  /** it has `copies`; `copiesContract` tests them */
  readonly copies: boolean
}

/** One test's: the sink, open and initialised, on a store in which the partitions that it uses are its own. */
export interface Stand {
  readonly under: SinkUnderTest
  readonly sink: Sink
  readonly promises: SinkPromises
  /** the same sink in another process; closed at the end of the test */
  another(): Promise<Sink>
  /** a partition nobody used before */
  fresh(): Fresh
}

/** A partition with a stream and keys of its own: a store that other tests use too shows only these. */
export interface Fresh {
  readonly partition: TopicPartition
  readonly stream: EventStream
  write(key: string, text: string): Event
  erase(key: string): Event
  /** an event that the store cannot take; to be asked for only where there are such */
  unfit(key: string): Event
  /** a key as the store has it */
  keyed(key: string): string
  /** what the store shows of these keys */
  shown(): Promise<Readonly<Record<string, string>>>
}

export function freshPartition(under: SinkUnderTest, partition: number): Fresh {
  const prefix = `p${partition}-`
  const stream = eventStream()
  const event = (key: string, payload: unknown): Event => stream.next({ type: under.types.write, key: prefix + key, payload })
  return {
    partition: { topic: under.topic, partition },
    stream,
    write: (key, text) => event(key, under.payload(prefix + key, text)),
    erase: (key) => stream.next({ type: under.types.remove, key: prefix + key }),
    unfit(key) {
      if (!under.unfit) throw new Error('the store takes whatever comes')
      return event(key, under.unfit(prefix + key))
    },
    keyed: (key) => prefix + key,
    async shown() {
      const own = [...(await under.rows())].filter(([key]) => key.startsWith(prefix))
      return Object.fromEntries(own.map(([key, text]) => [key.slice(prefix.length), text]).sort())
    },
  }
}
