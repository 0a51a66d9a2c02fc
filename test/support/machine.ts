import { access } from 'node:fs/promises'
import { request } from 'node:http'
import { javaMissing } from './kafka/jars.ts'
import { isInstalled } from './program.ts'

/** What a suite may require of the machine, besides what npm brings. */
export type Need = 'kafka' | 'own-kafka' | 'java' | 'maven' | 'docker' | 'docker-compose' | 'postgres15'

/** For each need null, or why it cannot be met. */
export type Machine = Readonly<Record<Need, string | null>>

export const POSTGRES_15 = '/usr/lib/postgresql/15/bin'

/** Brokers that the caller runs for us, from `MILLRACE_TEST_KAFKA=host:port,…`. */
export function givenKafka(): readonly string[] | null {
  const brokers = process.env['MILLRACE_TEST_KAFKA']?.split(',').filter((broker) => broker !== '')
  return brokers?.length ? brokers : null
}

export async function inspectMachine(): Promise<Machine> {
  const [java, docker, compose, postgres15] = await Promise.all([
    javaMissing(),
    dockerMissing(),
    composeMissing(),
    postgres15Missing(),
  ])
  const ownKafka = java === null || docker === null ? null : `Kafka (${docker}, and ${java})`
  const maven = (await isInstalled('mvn')) ? null : 'no Maven'
  return {
    java,
    maven,
    kafka: givenKafka() ? null : ownKafka,
    'own-kafka': ownKafka,
    docker,
    'docker-compose': compose,
    postgres15,
  }
}

async function postgres15Missing(): Promise<string | null> {
  return access(`${POSTGRES_15}/postgres`).then(
    () => null,
    () => `no Postgres 15 in ${POSTGRES_15}`,
  )
}

async function composeMissing(): Promise<string | null> {
  return (await isInstalled('docker-compose')) ? null : 'no docker-compose'
}

/** Asks the engine itself: a client that is installed says nothing about an engine that runs. */
async function dockerMissing(): Promise<string | null> {
  const host = process.env['DOCKER_HOST'] ?? 'unix:///var/run/docker.sock'
  const at = host.startsWith('unix://') ? { socketPath: host.slice(7) } : tcp(host)
  const status = await new Promise<number | undefined>((resolve) => {
    const ping = request({ ...at, path: '/_ping', timeout: 5_000 }, (response) => {
      response.resume()
      resolve(response.statusCode)
    })
    ping.on('timeout', () => ping.destroy())
    ping.on('error', () => resolve(undefined))
    ping.end()
  })
  return status === 200 ? null : `no Docker engine answers at ${host}`
}

function tcp(host: string): { host: string; port: number } {
  const { hostname, port } = new URL(host.replace(/^tcp:/, 'http:'))
  return { host: hostname, port: Number(port || 2375) }
}
