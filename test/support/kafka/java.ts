import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { steadyPort } from '../port.ts'
import { formatArguments, type KafkaCluster, type KafkaOptions, type NodeAddresses, serverProperties } from './cluster.ts'
import { kafkaJars } from './jars.ts'

/**
 * A cluster of bare JVMs on loopback. Measured on two cores: format 0.5 s, start 1.4 s (1.9 s with the JVM's defaults), which
 * a class data archive would halve again, at the price of one more thing to keep valid.
 */
export async function startJavaKafka(options: KafkaOptions = {}): Promise<KafkaCluster> {
  const jars = await kafkaJars()
  const home = await mkdtemp(join(tmpdir(), 'millrace-kafka-'))
  const addresses = await Promise.all(Array.from({ length: options.brokers ?? 1 }, () => loopback(options.front)))
  const nodes = addresses.map((_, index) => new Node(jars, join(home, `node-${index + 1}.properties`), options.jvm ?? FLAGS))
  const node = (number = 1): Node => {
    const found = nodes[number - 1]
    if (!found) throw new RangeError(`no node ${number} in a cluster of ${nodes.length}`)
    return found
  }
  const cluster: KafkaCluster = {
    brokers: addresses.map(({ dial }) => dial.client),
    data: addresses.map((_, index) => join(home, `node-${index + 1}`)),
    pid: (number) => node(number).pid,
    kill: (number) => node(number).end('SIGKILL'),
    stop: (number) => node(number).end('SIGTERM'),
    start: (number) => node(number).start(),
    async remove() {
      await Promise.all(nodes.map((each) => each.end('SIGKILL')))
      await rm(home, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 })
    },
  }
  try {
    for (const [index, each] of nodes.entries()) {
      const data = join(home, `node-${index + 1}`)
      await writeFile(each.configuration, serverProperties(index + 1, addresses, data, options), { mode: 0o600 })
      await each.format(options)
    }
    await Promise.all(nodes.map((each) => each.start()))
  } catch (error) {
    await cluster.remove()
    throw error
  }
  return cluster
}

async function loopback(front: KafkaOptions['front']): Promise<NodeAddresses> {
  const ports = await Promise.all([steadyPort(), steadyPort(), steadyPort()])
  const [client, peer, quorum] = ports.map((port) => `127.0.0.1:${port}`) as [string, string, string]
  const listen = { client, peer, quorum }
  return { listen, dial: front ? { ...listen, client: await front(ports[0]) } : listen }
}

/** Does not outlive us: when our end of its standard input closes, however we end, the shell kills the JVM. */
const GUARD = `
exec 3<&0
"$@" 2>&1 & jvm=$!
echo "jvm $jvm"
{ read -r _ <&3; kill -9 $jvm; } 2>/dev/null & guard=$!
wait $jvm; code=$?
kill $guard 2>/dev/null
exit $code`

const FLAGS = ['-Xmx512m', '-XX:+UseSerialGC', '-XX:TieredStopAtLevel=1', '-Djava.awt.headless=true']
const START_WITHIN_MS = 180_000

class Node {
  readonly configuration: string
  readonly #jvm: readonly string[]
  #shell: ChildProcess | undefined
  #pid = 0

  constructor(jars: string, configuration: string, flags: readonly string[]) {
    this.configuration = configuration
    const logging = `-Dlog4j2.configurationFile=file:${join(import.meta.dirname, 'log4j2.properties')}`
    this.#jvm = ['java', ...flags, logging, '-cp', join(jars, '*')]
  }

  get pid(): number {
    return this.#pid
  }

  async format(options: KafkaOptions): Promise<void> {
    const { child, lines } = this.#spawn(['kafka.tools.StorageTool', ...formatArguments(this.configuration, options)])
    const [code] = await once(child, 'close')
    if (code !== 0) throw new Error(`Kafka's storage could not be formatted (${code}):\n${lines.join('\n')}`)
  }

  async start(): Promise<void> {
    if (this.#shell) throw new Error('the Kafka node runs already')
    const { child, lines, reader } = this.#spawn(['kafka.Kafka', this.configuration])
    this.#shell = child
    child.once('exit', () => {
      this.#shell = undefined
      this.#pid = 0
    })
    await new Promise<void>((resolve, reject) => {
      const fail = (why: string): void => reject(new Error(`Kafka ${why}:\n${lines.join('\n')}`))
      const timer = setTimeout(() => {
        void this.end('SIGKILL')
        fail(`did not serve within ${START_WITHIN_MS} ms`)
      }, START_WITHIN_MS)
      child.once('exit', (code) => {
        clearTimeout(timer)
        fail(`ended at its start with ${code}`)
      })
      reader.on('line', (line) => {
        const pid = /^jvm (\d+)$/.exec(line)?.[1]
        if (pid) this.#pid = Number(pid)
        if (!line.includes('Kafka Server started')) return
        clearTimeout(timer)
        resolve()
      })
    })
  }

  async end(signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
    const shell = this.#shell
    if (!shell || shell.exitCode !== null) return
    const gone = once(shell, 'exit')
    if (this.#pid === 0 || !signalled(this.#pid, signal)) shell.stdin?.end()
    await gone
  }

  #spawn(command: readonly string[]) {
    const child = spawn('sh', ['-c', GUARD, 'sh', ...this.#jvm, ...command], { stdio: ['pipe', 'pipe', 'ignore'] })
    const lines: string[] = []
    const reader = createInterface({ input: child.stdout })
    reader.on('line', (line) => {
      lines.push(line)
      if (lines.length > 200) lines.shift()
    })
    return { child, lines, reader }
  }
}

function signalled(pid: number, signal: NodeJS.Signals): boolean {
  try {
    return process.kill(pid, signal)
  } catch {
    return false
  }
}
