import { type Mutant, simulationHaving } from '../mutant.ts'

/** Where another server takes over. */
export const FAILOVER_MUTANTS: readonly Mutant[] = [
  {
    bug: 'the epoch is not raised at a switch point',
    harm: 'the new timeline uses LSNs that the old one used as well: its events are taken for older ones and dropped',
    file: 'src/core/epoch.ts',
    edits: [{ find: 'epoch: last.epoch + 1 + index,', replace: 'epoch: last.epoch,' }],
    caughtBy: simulationHaving('promotion'),
  },
  {
    bug: 'all that a promoted server sends is of the new epoch',
    harm: 'what comes again from before the switch point is taken for new, and has its effect a second time',
    file: 'src/core/epoch.ts',
    edits: [{ find: 'while (index > 0 && commitLsn < (epochs[index] as Epoch).from) index--\n', replace: '' }],
    caughtBy: simulationHaving('promotion'),
  },
  {
    bug: 'a standby that lags behind is accepted',
    harm: 'the sinks keep events that this database never had, and nobody is told',
    file: 'src/core/failover.ts',
    edits: [{ find: 'if (relayed !== null && relayed >= shared) throw', replace: 'if (relayed !== null && relayed < 0n) throw' }],
    caughtBy: simulationHaving('promotion'),
  },
]
