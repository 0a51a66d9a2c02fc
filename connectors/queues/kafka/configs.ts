import type { Cluster } from './cluster.ts'
import type { BrokerLink } from './kafkajs.ts'
import { ERROR } from './protocol-errors.ts'

const TOPIC = 2
const BROKER = 4

interface DescribeConfigsAnswer {
  readonly resources: readonly {
    readonly errorCode: number
    readonly resourceName: string
    readonly configEntries: readonly { readonly configName: string; readonly configValue: string | null }[]
  }[]
}

/** Settings by name; null where the principal may not see them. */
export type Settings = ReadonlyMap<string, string> | null

/** The settings in force for each topic, the brokers' defaults included. */
export async function topicSettings(
  cluster: Cluster,
  topics: readonly string[],
  names: readonly string[],
): Promise<ReadonlyMap<string, Settings>> {
  if (topics.length === 0) return new Map()
  const resources = topics.map((name) => ({ type: TOPIC, name, configNames: names }))
  return describe(cluster, await cluster.any(), resources)
}

export async function brokerSettings(cluster: Cluster, node: number, names: readonly string[]): Promise<Settings> {
  const resource = { type: BROKER, name: String(node), configNames: names }
  return (await describe(cluster, await cluster.node(node), [resource])).get(String(node)) ?? null
}

async function describe(
  cluster: Cluster,
  link: BrokerLink,
  resources: readonly object[],
): Promise<ReadonlyMap<string, Settings>> {
  const answer = await cluster.call<DescribeConfigsAnswer>(link, 'DescribeConfigs', { resources }, 'for its settings')
  return new Map(
    answer.resources.map(({ errorCode, resourceName, configEntries }) => [
      resourceName,
      errorCode === ERROR.NONE
        ? new Map(configEntries.map(({ configName, configValue }) => [configName, configValue ?? '']))
        : null,
    ]),
  )
}
