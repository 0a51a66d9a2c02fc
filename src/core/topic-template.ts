/** `outbox.event.{aggregate_type}`: the topic of an aggregate type. */
export const DEFAULT_TOPIC = 'outbox.event.{aggregate_type}'

const PLACEHOLDER = '{aggregate_type}'

export function topicOf(template: string, aggregateType: string): string {
  return template.replace(PLACEHOLDER, () => aggregateType)
}

/** the names that `Queue.topics` takes for the aggregate types a sink follows; null follows all of them */
export function topicsOf(template: string, aggregateTypes: readonly string[] | null): readonly string[] {
  if (!template.includes(PLACEHOLDER)) return [template]
  if (aggregateTypes !== null) return [...new Set(aggregateTypes.map((type) => topicOf(template, type)))]
  return [`${template.slice(0, template.indexOf(PLACEHOLDER))}*`]
}
