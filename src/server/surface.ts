import type { Running } from '../runtime/run.ts'
import { emptyStatus, type StatusReport } from '../runtime/status.ts'
import type { AdminSurface } from './admin.ts'
import { metricsOf } from './metrics.ts'

/** What the endpoints show of a running pipeline; null: not yet begun. */
export function adminSurface(name: string, running: () => Running | null): AdminSurface {
  const status = async (): Promise<StatusReport> => (await running()?.status()) ?? emptyStatus(name)
  return {
    live: () => running()?.ended !== true,
    ready: () => running()?.ready() === true,
    metrics: async () => metricsOf(await status()),
    status,
  }
}
