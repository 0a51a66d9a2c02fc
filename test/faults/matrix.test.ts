import { holdShort } from './matrix/short-form.ts'

/*
 * What every change has to pass, with matrix-kafka.test.ts beside it; `npm run faults` runs all rows, in full, over all
 * that there is.
 */
await holdShort('local', [
  ['1', 'kill -9 of the relay'],
  ['2', 'kill -9 of the source Postgres'],
  ['9', 'kill -9 of the applier'],
  ['9', "the sink's connection is cut"],
  ['12', 'the slot is dropped and made again'],
])
