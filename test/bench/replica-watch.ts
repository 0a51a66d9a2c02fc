import { LogicalReplicationService, PgoutputPlugin } from 'pg-logical-replication'
import { execute } from './stage.ts'

/**
 * Tells when rows become visible in the replica, for whoever writes them: by a logical slot on the replica, which sends
 * a transaction when it commits. Beside polling it costs next to nothing, and it is a little late (decoding and a
 * loopback hop, 0.1 to 0.3 ms), never early by more than the microseconds between a commit's flush and its visibility.
 */
export async function watchReplica(url: string, seen: (seq: number, at: number) => void): Promise<{ stop(): Promise<void> }> {
  await execute(
    url,
    'create publication watch for table public.orders',
    `select pg_create_logical_replication_slot('watch_' || current_database(), 'pgoutput')`,
  )
  const slot = `watch_${new URL(url).pathname.slice(1)}`
  const service = new LogicalReplicationService({ connectionString: url }, { acknowledge: { auto: false, timeoutSeconds: 1 } })
  service.on('data', (_lsn: string, message: Message) => {
    if (message.tag === 'insert' || message.tag === 'update') seen(Number(message.new.seq), performance.now())
  })
  let failure: Error | undefined
  service.on('error', (error: Error) => {
    failure = error
  })
  const started = new Promise<void>((resolve) => service.on('start', () => resolve()))
  const ended = service.subscribe(new PgoutputPlugin({ protoVersion: 1, publicationNames: ['watch'] }), slot)
  ended.catch((error: Error) => {
    failure = error
  })
  await Promise.race([started, ended])
  return {
    async stop() {
      if (failure) throw new Error('the watch over the replica broke', { cause: failure })
      await service.stop()
    },
  }
}

type Message =
  | { readonly tag: 'insert' | 'update'; readonly new: { readonly seq: string } }
  | { readonly tag: 'begin' | 'commit' | 'relation' }
