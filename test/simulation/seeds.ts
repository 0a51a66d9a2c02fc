/** Seeds that ever broke a promise, and what was wrong: `npm test` runs them before any fresh one. */
export const SEEDS: readonly (readonly [seed: number, what: string])[] = [
  [16, 'a conflict was final for an attempt that had failed before the other partitions had got that far'],
  [3371, 'a conflict was final while another lane stood in one that its next attempt resolved'],
  [70, "a former session's publishes straddled the end that the next one recorded for a new topic"],
  [117, 'a relay that was stopped while it began judged a newer queue by the WAL end it had heard before'],
  [86, 'the first event of a partition was lost, and a sink founded its chain on the second'],
  [1366, 'the same, after the lane had been started anew'],
  [51, 'a batch that moved only the offset came late and moved it back'],
  [1420, 'a session that was replaced while it began hid what the owner of the slot had confirmed'],
  [3734, 'a relay that was asked to stop while it doubted the queue halted instead'],
]
