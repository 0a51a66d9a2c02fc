import type { Finding } from '../core/finding.ts'
import { isLocal } from '../core/tls.ts'
import type { ParsedConfig } from './config-schema.ts'

const SAYS = {
  disable:
    'its connection is not secured (tls.mode: disable): whoever is on the way reads and changes what passes, logins included',
  'verify-ca':
    'the name of its server is not looked at (tls.mode: verify-ca): any holder of a certificate of that authority can be it',
} as const

/** The connections that leave this machine with less than the default asks for: said at each start and by `check`. */
export function unsecured({ source, queue, sinks }: ParsedConfig): readonly Finding[] {
  const sections: readonly (readonly [string, unknown])[] = [
    ['source', source],
    ['queue', queue],
    ...Object.entries(sinks).map(([name, sink]) => [`sinks.${name}`, sink] as const),
  ]
  return sections.flatMap(([subject, section]): readonly Finding[] => {
    const { tls, url, brokers } = (section ?? {}) as { tls?: { mode?: unknown }; url?: unknown; brokers?: unknown }
    const place = typeof url === 'string' && URL.canParse(url) ? new URL(url) : null
    const mode = tls?.mode ?? place?.searchParams.get('sslmode')
    const hosts = place === null ? hostsOf(brokers) : [place.searchParams.get('host') ?? place.hostname]
    if ((mode !== 'disable' && mode !== 'verify-ca') || hosts.every((host) => host === '' || isLocal(host))) return []
    return [
      {
        level: 'warning',
        subject,
        message: SAYS[mode],
        remedy: 'leave tls.mode out, and give tls.ca where the authority is your own',
      },
    ]
  })
}

function hostsOf(brokers: unknown): readonly string[] {
  return Array.isArray(brokers) ? brokers.map((broker) => String(broker).replace(/:\d+$/, '')) : []
}
