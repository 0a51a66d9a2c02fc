import { describeMishap } from './network.ts'
import type { Action, Row } from './schedule.ts'

/** A step in words: a failed schedule is read by people. */
export function describeAction(action: Action): string {
  switch (action.kind) {
    case 'transaction': {
      const open = action.openMs > 0 ? ` after ${seconds(action.openMs)}` : ''
      const end = action.rollback ? 'is rolled back' : `commits${open}${action.backToBack ? ', back to back' : ''}`
      return `a transaction of ${action.rows.map(describeRow).join(', ')} ${end}`
    }
    case 'write elsewhere':
      return `${action.bytes} bytes of WAL that nobody publishes`
    case 'foreign record':
      return `a foreign producer writes to ${action.topic}/${action.partition}`
    case 'other source':
      return `another source ${action.again ? 'repeats its last event' : 'publishes'} to ${action.topic}/${action.partition}`
    case 'sink joins':
      return `a sink without a checkpoint joins, start: ${action.start}`
    case 'redrive':
      return 'the stores are mended and a parked key is redriven'
    case 'crash':
      return `${action.process} crashes, noticed after ${seconds(action.noticedMs)}, back after ${seconds(action.downMs)}`
    case 'crash at':
      return `${action.process} will crash at the failpoint ${action.failpoint}, noticed after ${seconds(action.noticedMs)}, back after ${seconds(action.downMs)}`
    case 'freeze':
      return `${action.process} is stopped for ${seconds(action.ms)}, given up by its servers after ${seconds(action.noticedMs)}`
    case 'stop':
      return `${action.process} is asked to stop, back ${seconds(action.downMs)} later`
    case 'wall clock':
      return `the wall clock of ${action.process} jumps by ${seconds(action.ms)}`
    case 'mishap':
      return describeMishap(action.mishap)
    case 'outage':
      return `${action.service} refuses everything for ${seconds(action.ms)}`
    case 'stream breaks':
      return 'the replication stream breaks'
    case 'postgres checkpoint':
      return 'Postgres makes a checkpoint'
    case 'postgres crash':
      return `Postgres crashes and forgets what was confirmed since its checkpoint, back after ${seconds(action.ms)}`
    case 'postgres restart':
      return `Postgres is restarted, back after ${seconds(action.ms)}`
    case 'promotion':
      return `a standby ${action.lagging === 0 ? 'that has everything' : `that lacks the last ${action.lagging} commits`} is promoted, up after ${seconds(action.ms)}`
    case 'rebalance':
      return `the group rebalances${action.grudgingMs > 0 ? `; former owners hear of it ${seconds(action.grudgingMs)} late` : ''}`
    case 'consumers break':
      return `${action.process} loses its membership`
    case 'stale answers':
      return `brokers that have just come back answer for ${seconds(action.ms)}`
    case 'retention':
      return `retention leaves ${action.keep} records of ${action.topic}/${action.partition}`
    case 'broker loss':
      return `the queue loses the last ${action.count} records of ${action.topic}/${action.partition}`
    case 'topic recreated':
    case 'topic deleted':
      return `the ${action.kind.replace(' ', ` ${action.topic} is `)}`
    case 'drain':
      return `the relays are stopped and the stream is drained${action.mapping ? '; then the mapping changes' : ''}`
    case 'partitions added':
      return `${action.topic} gets one more partition`
    default:
      return action.kind
  }
}

function describeRow({ key, payload, orderingKey, headers }: Row): string {
  const what = payload === null ? 'deleted' : payload.length > 200 ? 'with a payload too long' : payload
  return `${key}${orderingKey === null ? '' : ` (ordered by ${orderingKey})`} ${what}${headers?.startsWith('[') ? ' with headers that are none' : ''}`
}

const seconds = (ms: number): string => `${(ms / 1_000).toFixed(2)} s`
