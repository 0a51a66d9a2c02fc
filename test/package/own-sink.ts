/** What the author of a sink writes, with everything there is to import; `pack.test.ts` compiles it against the package. */

import type {
  Audit,
  AuditRecord,
  CompareOptions,
  Comparison,
  Copies,
  Copy,
  CopyRecord,
  CopyShape,
  CopyWish,
  Difference,
  DifferenceKind,
  ErrorCode,
  ErrorDetail,
  Event,
  Finding,
  Header,
  KeyPlace,
  Lane,
  LaneBatch,
  Log,
  Lsn,
  Mended,
  MendOptions,
  ParkedEvent,
  ParkedKey,
  ParkedTotals,
  Parking,
  ParkReason,
  PartitionCheckpoint,
  Policy,
  Position,
  QueueConnector,
  QueueTraits,
  Reach,
  Redriven,
  Refused,
  RowTraits,
  Sink,
  SinkConnector,
  SinkDeps,
  SinkTraits,
  StoredParkedEvent,
  TlsConnect,
  TlsOptions,
  ValidationIssue,
  ValidationResult,
} from '../../src/connector.ts'
import {
  backoff,
  CODES,
  codeOf,
  DEFAULT_TOPIC,
  DURATION,
  defineSink,
  formatLsn,
  isErrorCode,
  isLocal,
  isPosition,
  isRetried,
  MillraceError,
  orderOf,
  parseDuration,
  parseLsn,
  parsePosition,
  policyFor,
  position,
  tlsFor,
  topicOf,
} from '../../src/connector.ts'
import { batchOf, copiesContract, eventStream, type SinkUnderTest, sinkContract, UNFIT } from '../../src/testing/index.ts'

const parking: Parking = {
  totals: async (): Promise<ParkedTotals> => ({ keys: 0, events: 0, bytes: 0 }),
  keys: async (): Promise<readonly ParkedKey[]> => [],
  events: async (_key: KeyPlace): Promise<readonly StoredParkedEvent[]> => [],
  redrive: async (_key, _by: Audit): Promise<Redriven> => ({ applied: 0, remaining: 0, reason: null }),
  skip: async (_key, _position: Position) => ({ applied: 0, remaining: 0, reason: null satisfies ParkReason | null }),
  audit: async (): Promise<readonly AuditRecord[]> => [],
}
const copy = {} as Copy
const copies = {} as Copies
export const found: Promise<CopyRecord | null> = copies.find()
export const made = (job: string, shape: CopyShape): Promise<Copy> => copies.create(job, shape)
export const asked = (wish: CopyWish | null): Promise<void> => copies.ask(wish)
export const compare = async (options: CompareOptions & { reach: Reach | null }): Promise<Comparison> =>
  copy.compare('orders', null, options)
export const mend = async (keys: readonly Difference[], options: MendOptions): Promise<Mended> => copy.mend(keys, options)
export const kinds: readonly DifferenceKind[] = ['missing', 'extra']
export type Told = readonly [Refused, RowTraits]

function open({ sink, log, topicTemplate = DEFAULT_TOPIC }: SinkDeps): Sink {
  const traits: SinkTraits = { name: sink, effect: 'convergent', checkpoints: true }
  const checkpoint: PartitionCheckpoint = {
    topic: topicOf(topicTemplate, 'order'),
    partition: 0,
    positions: new Map(),
    offset: null,
    parked: new Set(),
    beginning: null,
  }
  const lane: Lane = {
    checkpoint,
    apply: async ({ events, parked }: LaneBatch) => {
      const waiting: readonly ParkedEvent[] = parked
      for (const event of events) if (waiting.some((one) => orderOf(one.event) === orderOf(event))) throw refused(event)
    },
    reread: async () => checkpoint,
    release: async () => {},
  }
  const say: Log = log.child({ traits })
  say.debug({ headers: [] satisfies Header[] }, 'open')
  const findings: readonly Finding[] = []
  return {
    traits,
    parking,
    copies,
    redeliver: async (_place, _events) => {},
    check: async () => findings,
    init: async () => {},
    claim: async () => lane,
    checkpoints: async () => [checkpoint],
    close: async () => {},
  }
}

function refused({ source, position, id }: Event): MillraceError {
  const code: ErrorCode = 'MILLRACE_EVENT_REJECTED'
  const detail: ErrorDetail = { remedy: 'mend it', fields: { source, position, id } }
  return new MillraceError(code, 'refused', detail)
}

export const ownSink: SinkConnector<{ url: string }> = defineSink({
  name: 'own',
  options: {
    '~standard': {
      version: 1,
      vendor: 'own',
      validate: (value: unknown): ValidationResult<{ url: string }> =>
        typeof value === 'string' ? { value: { url: value } } : { issues: [{ message: 'no url' } satisfies ValidationIssue] },
    },
  },
  follows: () => null,
  open: async (_options, deps) => open(deps),
})
const lsn: Lsn = parseLsn(formatLsn(parsePosition(position(1, 16n, 1)).commitLsn))
const tls: TlsConnect = tlsFor('db', { mode: 'verify-full' } satisfies TlsOptions)
const policy: Policy = policyFor(new Error())
export const rest = [
  lsn,
  tls,
  policy,
  isRetried(policy),
  isLocal('::1'),
  isPosition(''),
  codeOf(null),
  isErrorCode(''),
  CODES.length,
  parseDuration('1s'),
  DURATION,
  backoff(1, Math.random),
  UNFIT,
]
export type Rest = [QueueConnector, QueueTraits]
export const contract = (
  start: () => Promise<SinkUnderTest>,
  test: (name: string, run: () => Promise<void>) => unknown,
): void => {
  sinkContract({ test, start, promises: { effect: 'convergent', parking: true, redeliver: true, copies: true } })
  copiesContract({ test, start })
}
export const batch = batchOf([eventStream().next({ type: 'Placed', key: '1', payload: {} })], 1n)
