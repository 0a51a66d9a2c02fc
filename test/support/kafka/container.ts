import { GenericContainer, getContainerRuntimeClient, Network, type StartedTestContainer, Wait } from 'testcontainers'
import { steadyPort } from '../port.ts'
import { formatArguments, type KafkaCluster, type KafkaOptions, type NodeAddresses, serverProperties } from './cluster.ts'

/** Any image with Kafka's own layout; the default comes from the public hub. */
export const KAFKA_IMAGE = process.env['MILLRACE_TEST_KAFKA_IMAGE'] || 'apache/kafka:4.1.1'

const CONFIGURATION = '/tmp/server.properties'
const DATA = '/tmp/kafka-data'
const SERVES = /Kafka Server started/

/** The same cluster as `java.ts` makes, in containers on a network of their own. */
export async function startContainerKafka(options: KafkaOptions = {}): Promise<KafkaCluster> {
  const runtime = await getContainerRuntimeClient()
  const host = runtime.info.containerRuntime.host
  const network = await new Network().start()
  const ports = await Promise.all(Array.from({ length: options.brokers ?? 1 }, steadyPort))
  const addresses = ports.map((port, index): NodeAddresses => {
    const alias = `kafka-${index + 1}`
    return {
      listen: { client: `0.0.0.0:${port}`, peer: '0.0.0.0:9094', quorum: '0.0.0.0:9093' },
      dial: { client: `${host}:${port}`, peer: `${alias}:9094`, quorum: `${alias}:9093` },
    }
  })
  const nodes: StartedTestContainer[] = []
  const pids = new Map<number, number>()
  const raw = (node: number) => {
    const started = nodes[node - 1]
    if (!started) throw new RangeError(`no node ${node} in a cluster of ${nodes.length}`)
    return runtime.container.dockerode.getContainer(started.getId())
  }
  const notePid = async (node: number): Promise<void> => {
    pids.set(node, (await raw(node).inspect()).State.Pid)
  }
  const end = async (node: number, signal: 'SIGKILL' | 'SIGTERM'): Promise<void> => {
    if (pids.get(node) === 0) return
    const gone = raw(node).wait()
    await raw(node).kill({ signal })
    await gone
    await notePid(node)
  }
  const cluster: KafkaCluster = {
    brokers: addresses.map(({ dial }) => dial.client),
    data: [],
    pid: (node = 1) => pids.get(node) ?? 0,
    kill: (node = 1) => end(node, 'SIGKILL'),
    stop: (node = 1) => end(node, 'SIGTERM'),
    async start(node = 1) {
      const started = nodes[node - 1] as StartedTestContainer
      const since = Math.floor(Date.now() / 1000)
      await raw(node).start()
      const log = await runtime.container.logs(raw(node), { since, follow: true } as never)
      await new Promise<void>((resolve, reject) => {
        log.on('data', (chunk) => SERVES.test(String(chunk)) && resolve())
        log.on('end', () => reject(new Error(`Kafka ended at its start in container ${started.getId()}`)))
      })
      log.destroy()
      await notePid(node)
    },
    async remove() {
      await Promise.all(nodes.map((node) => node.stop({ timeout: 0 })))
      await network.stop()
    },
  }
  try {
    const starting = addresses.map((_, index) => {
      const id = index + 1
      return container(id, ports[index] as number, serverProperties(id, addresses, DATA, options), options)
        .withNetwork(network)
        .withNetworkAliases(`kafka-${id}`)
        .start()
    })
    nodes.push(...(await Promise.all(starting)))
    await Promise.all(nodes.map((_, index) => notePid(index + 1)))
  } catch (error) {
    await cluster.remove()
    throw error
  }
  return cluster
}

function container(id: number, port: number, properties: string, options: KafkaOptions): GenericContainer {
  const quoted = formatArguments(CONFIGURATION, options).map((argument) => `'${argument}'`)
  const format = `/opt/kafka/bin/kafka-storage.sh ${quoted.join(' ')}`
  const serve = `exec /opt/kafka/bin/kafka-server-start.sh ${CONFIGURATION}`
  return new GenericContainer(KAFKA_IMAGE)
    .withName(`millrace-kafka-${id}-${port}`)
    .withEntrypoint(['/bin/sh', '-c'])
    .withCommand([`${format} && ${serve}`])
    .withEnvironment({ KAFKA_HEAP_OPTS: '-Xmx512m' })
    .withCopyContentToContainer([{ content: properties, target: CONFIGURATION }])
    .withExposedPorts({ container: port, host: port })
    .withWaitStrategy(Wait.forLogMessage(SERVES))
    .withStartupTimeout(100_000)
}
