/**
 * A throw-away Kafka for tests, to be broken at will. Nodes are numbered from 1; each is broker and controller at once,
 * so that of three nodes two carry on. Topics are never made by asking for them, as in production.
 */
export interface KafkaCluster {
  /** `host:port` of each node, for clients; the same after a restart */
  readonly brokers: readonly string[]
  /** the folder of each node's data; none in containers */
  readonly data: readonly string[]
  /** of the node's process; 0 while it is down. In a container: as the engine sees it */
  pid(node?: number): number
  /** kill -9; resolves when the process is gone */
  kill(node?: number): Promise<void>
  /** an orderly shutdown */
  stop(node?: number): Promise<void>
  /** again on the same data and ports; resolves when the node serves */
  start(node?: number): Promise<void>
  /** all nodes and their data */
  remove(): Promise<void>
}

export interface KafkaOptions {
  readonly brokers?: 1 | 3
  /**
   * puts something between the clients and each node: given the port that the node listens on, resolves with the address
   * that clients are told to dial. Only for bare JVMs
   */
  readonly front?: (port: number) => Promise<string>
  /** laid over our server.properties */
  readonly properties?: Readonly<Record<string, string>>
  /** flags of each node's JVM; default: a small one that starts fast */
  readonly jvm?: readonly string[]
  /** for the clients' listener; PEM texts. With `clientCa`, clients must show a certificate of it */
  readonly tls?: { readonly certificate: string; readonly key: string; readonly clientCa?: string }
  /** for the clients' listener. OAUTHBEARER takes unsigned tokens and no users */
  readonly sasl?: {
    readonly mechanism: 'PLAIN' | 'SCRAM-SHA-256' | 'SCRAM-SHA-512' | 'OAUTHBEARER'
    readonly users?: Readonly<Record<string, string>>
  }
}

/** Where a node listens for clients, its peers and the quorum, and what it tells the first two to dial. */
export interface NodeAddresses {
  readonly listen: { readonly client: string; readonly peer: string; readonly quorum: string }
  readonly dial: { readonly client: string; readonly peer: string; readonly quorum: string }
}

/** Base64 of a uuid, the same for all throw-away clusters. */
export const CLUSTER_ID = 'bWlsbHJhY2UtdGVzdHMtMQ'

export function serverProperties(id: number, nodes: readonly NodeAddresses[], dataDir: string, options: KafkaOptions): string {
  const { listen, dial } = nodes[id - 1] as NodeAddresses
  const replicas = String(nodes.length)
  const inSync = nodes.length > 1 ? '2' : '1'
  const properties: Record<string, string> = {
    'process.roles': 'broker,controller',
    'node.id': String(id),
    'controller.quorum.voters': nodes.map((node, index) => `${index + 1}@${node.dial.quorum}`).join(','),
    listeners: `CLIENT://${listen.client},PEER://${listen.peer},QUORUM://${listen.quorum}`,
    'advertised.listeners': `CLIENT://${dial.client},PEER://${dial.peer}`,
    'listener.security.protocol.map': `CLIENT:${protocol(options)},PEER:PLAINTEXT,QUORUM:PLAINTEXT`,
    'controller.listener.names': 'QUORUM',
    'inter.broker.listener.name': 'PEER',
    'log.dirs': dataDir,
    'auto.create.topics.enable': 'false',
    'default.replication.factor': replicas,
    'min.insync.replicas': inSync,
    'offsets.topic.replication.factor': replicas,
    'offsets.topic.num.partitions': '3',
    'transaction.state.log.replication.factor': replicas,
    'transaction.state.log.min.isr': inSync,
    'transaction.state.log.num.partitions': '3',
    'share.coordinator.state.topic.replication.factor': replicas,
    'share.coordinator.state.topic.min.isr': inSync,
    'group.initial.rebalance.delay.ms': '0',
    // a killed node gives up its leaderships sooner than after 9 s, and may come back as soon; of three, one that is alive
    // and has to wait for a CPU is not to lose them (3 s were seen to be too little)
    'broker.session.timeout.ms': nodes.length > 1 ? '6000' : '3000',
    'broker.heartbeat.interval.ms': '500',
    'num.network.threads': '2',
    'num.io.threads': '4',
    'log.cleaner.dedupe.buffer.size': '16777216',
    ...security(options),
    ...options.properties,
  }
  return Object.entries(properties)
    .map(([name, value]) => `${name}=${value.replaceAll('\\', '\\\\').replaceAll('\n', '\\n')}\n`)
    .join('')
}

/** What the storage is formatted with: SCRAM users live in the cluster's metadata, from before its first start. */
export function formatArguments(configuration: string, { sasl }: KafkaOptions): readonly string[] {
  const users = sasl?.mechanism.startsWith('SCRAM') ? Object.entries(sasl.users ?? {}) : []
  const scram = users.flatMap(([name, password]) => ['--add-scram', `${sasl?.mechanism}=[name=${name},password=${password}]`])
  return ['format', '--ignore-formatted', '--cluster-id', CLUSTER_ID, '--config', configuration, ...scram]
}

const protocol = ({ tls, sasl }: KafkaOptions): string =>
  sasl ? (tls ? 'SASL_SSL' : 'SASL_PLAINTEXT') : tls ? 'SSL' : 'PLAINTEXT'

function security({ tls, sasl }: KafkaOptions): Record<string, string> {
  const listener = 'listener.name.client.'
  const settings: Record<string, string> = {}
  if (tls) {
    settings[`${listener}ssl.keystore.type`] = 'PEM'
    settings[`${listener}ssl.keystore.certificate.chain`] = tls.certificate
    settings[`${listener}ssl.keystore.key`] = tls.key
    if (tls.clientCa !== undefined) {
      settings[`${listener}ssl.client.auth`] = 'required'
      settings[`${listener}ssl.truststore.type`] = 'PEM'
      settings[`${listener}ssl.truststore.certificates`] = tls.clientCa
    }
  }
  if (sasl) {
    settings[`${listener}sasl.enabled.mechanisms`] = sasl.mechanism
    settings[`${listener}${sasl.mechanism.toLowerCase()}.sasl.jaas.config`] = jaas(sasl)
  }
  return settings
}

function jaas({ mechanism, users = {} }: NonNullable<KafkaOptions['sasl']>): string {
  const module = 'org.apache.kafka.common.security'
  if (mechanism === 'OAUTHBEARER') {
    return `${module}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";`
  }
  if (mechanism !== 'PLAIN') return `${module}.scram.ScramLoginModule required;`
  const entries = Object.entries(users).map(([name, password]) => ` user_${name}="${password}"`)
  return `${module}.plain.PlainLoginModule required${entries.join('')};`
}
