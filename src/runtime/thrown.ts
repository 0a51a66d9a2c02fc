/** what Node says of a module that it cannot find or read: names and paths, nothing that the module holds */
const OF_NODE = /^ERR_(MODULE_|PACKAGE_|UNSUPPORTED_|INVALID_MODULE_|UNKNOWN_FILE_|REQUIRE_)/

/**
 * What was thrown while a module of the user's was loaded, as far as it can be told to anybody: its message may quote what
 * the module was working with, which in a config is secrets. So its kind and where it was thrown.
 */
export function describeThrown(thrown: unknown): string {
  if (!(thrown instanceof Error)) return 'it threw something that is no error'
  const { code } = thrown as { code?: unknown }
  if (typeof code === 'string' && OF_NODE.test(code)) return thrown.message
  const name = /^\w{1,40}$/.test(thrown.name) ? thrown.name : 'Error'
  const place = /\(?((?:file:\/\/)?\/[^\s()]+:\d+(?::\d+)?)\)?$/m.exec(thrown.stack ?? '')?.[1]
  return `${name}${typeof code === 'string' && /^\w{1,60}$/.test(code) ? ` (${code})` : ''}${place === undefined ? '' : ` at ${place.replace(/^file:\/\//, '')}`}`
}
