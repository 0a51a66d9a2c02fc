import type { Running } from '../runtime/run.ts'
import { emptyStatus, type StatusReport } from '../runtime/status.ts'
import type { AdminSurface } from './admin.ts'
import { metricsOf } from './metrics.ts'

/**
 * What the endpoints show of a running pipeline; null: not yet begun.
 * @param scrub takes the secrets out of a text: messages of servers and of the user's own functions stand in a status
 */
export function adminSurface(name: string, running: () => Running | null, scrub: (text: string) => string): AdminSurface {
  const status = async (): Promise<StatusReport> => (await running()?.status()) ?? emptyStatus(name)
  return {
    live: () => running()?.ended !== true,
    ready: () => running()?.ready() === true,
    metrics: async () => scrub(await metricsOf(await status())),
    status: async () => JSON.parse(scrub(JSON.stringify(await status()))),
  }
}
