import { MillraceError } from '../../../src/core/errors.ts'
import type { Event } from '../../../src/core/event.ts'
import type { TopicPartition } from '../../../src/core/queue.ts'
import { type Fault, type Said, STATE_MEANS } from './failure.ts'
import { type Ask, misfit } from './misfit.ts'
import { eventFields, type PlannedStatement, rejected } from './plan.ts'

/** Why the event cannot be applied, of which a statement failed that writes it alone: with table and column where they can be told. */
export async function unfitEvent(
  ask: Ask,
  partition: TopicPartition,
  event: Event,
  statement: PlannedStatement,
  fault: Fault,
  why: Said,
): Promise<MillraceError> {
  const table = why.table ?? statement.feed.target.name
  const column = why.column ?? (fault === 'data' ? ((await misfit(ask, statement).catch(() => null)) ?? undefined) : undefined)
  return unfit(partition, event, fault, { ...why, table, column })
}

/** `event`: null where none is known to be at fault */
export function unfit(partition: TopicPartition, event: Event | null, fault: Fault, why: Said): MillraceError {
  const { state, table, column, constraint } = why
  const means = STATE_MEANS[state ?? ''] ?? 'the database refuses it'
  const where = [column && `column ${column}`, constraint && `constraint ${constraint}`, table && `table ${table}`, state]
    .filter(Boolean)
    .join(', ')
  const fields = {
    ...(state !== null && { cause: state }),
    ...(table !== undefined && { table }),
    ...(column !== undefined && { column }),
    ...(constraint !== undefined && { constraint }),
  }
  if (fault === 'data' && event !== null) return rejected(partition, null, event, `${means} (${where})`, fields)
  if (fault === 'data')
    return new MillraceError(
      'MILLRACE_EVENT_REJECTED',
      `an event of a batch of ${partition.topic}/${partition.partition} cannot be applied: ${means} (${where})`,
      { fields },
    )
  const which = event === null ? 'a batch' : `the event ${event.position} (${event.type}, id ${event.id})`
  return new MillraceError(
    'MILLRACE_EVENT_CONFLICT',
    `${which} of ${partition.topic}/${partition.partition} cannot be applied: ${means} (${where})`,
    {
      remedy:
        'it is tried again while other partitions may still bring what it waits for; if it stays, correct the row or the constraint',
      fields: {
        ...(event === null ? { topic: partition.topic, partition: partition.partition } : eventFields(partition, event)),
        ...fields,
      },
    },
  )
}
