import type { Schedule } from './schedule.ts'

/**
 * Schedules that broke a promise once, each as short as it was found: `npm test` runs them before any fresh one. They are
 * data, since a seed is another schedule as soon as there is one more kind of fault. `npm run simulate` prints what
 * belongs here when it finds one.
 */
export const BROKEN: readonly { readonly what: string; readonly schedule: Schedule }[] = []
