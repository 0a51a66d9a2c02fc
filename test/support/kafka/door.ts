import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { KafkaCluster } from './cluster.ts'

/**
 * Lets test files, which run in processes of their own, ask the run for its shared broker. It is started by the first who
 * asks: a run over files that need no Kafka starts none.
 */
export interface KafkaDoor {
  readonly url: string
  close(): Promise<void>
}

export async function openKafkaDoor(start: () => Promise<KafkaCluster>, given: readonly string[] | null): Promise<KafkaDoor> {
  let cluster: Promise<KafkaCluster> | undefined
  const brokers = async (): Promise<readonly string[]> => {
    if (given) return given
    cluster ??= start()
    return (await cluster).brokers
  }
  const server = createServer((_request, response) => {
    brokers().then(
      (found) => response.end(JSON.stringify(found)),
      (error) => response.writeHead(500).end(`the run's Kafka did not start: ${error}`),
    )
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    async close() {
      server.close()
      server.closeAllConnections()
      await (await cluster?.catch(() => undefined))?.remove()
    },
  }
}
