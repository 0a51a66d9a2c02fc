/** Where tests kill the process: each edge at which something has just become durable, or is about to. */
export type Failpoint = 'read' | 'planned' | 'sent' | 'acked' | 'topic-recorded' | 'state-written' | 'confirmed'
