/**
 * What the names of a pipeline and its sinks become in the systems it uses. Costly to change once somebody runs it:
 * held by a golden test.
 */
export const slotName = (pipeline: string): string => `millrace_${pipeline}`
export const publicationName = (pipeline: string): string => `millrace_${pipeline}`
export const stateTopic = (pipeline: string): string => `millrace.${pipeline}.state`
export const consumerGroup = (pipeline: string, sink: string): string => `millrace.${pipeline}.${sink}`
