import type { Mutant } from '../mutant.ts'
import { FAILOVER_MUTANTS } from './failover.ts'
import { LANE_MUTANTS } from './lane.ts'
import { OPERATIONS_MUTANTS } from './operations.ts'
import { QUEUE_MUTANTS } from './queue.ts'
import { RELAY_MUTANTS, TAIL_MUTANTS } from './relay.ts'
import { SINK_MUTANTS } from './sink.ts'
import { SOURCE_MUTANTS } from './source.ts'

export const MUTANTS: readonly Mutant[] = [
  ...RELAY_MUTANTS,
  ...TAIL_MUTANTS,
  ...LANE_MUTANTS,
  ...FAILOVER_MUTANTS,
  ...SOURCE_MUTANTS,
  ...QUEUE_MUTANTS,
  ...SINK_MUTANTS,
  ...OPERATIONS_MUTANTS,
]
