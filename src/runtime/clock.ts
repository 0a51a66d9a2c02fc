import { setTimeout as timer } from 'node:timers/promises'
import type { Clock } from '../core/clock.ts'

export const systemClock: Clock = {
  now: Date.now,
  elapsed: () => performance.now(),
  wait: (ms, signal) => timer(ms, undefined, signal && { signal }).catch(() => {}),
}
