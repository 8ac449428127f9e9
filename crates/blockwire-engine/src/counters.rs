//! What a worker or a session counts. Plain integers: each belongs to one thread at a time.

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// Running totals since the start.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)+
        }

        impl Counters {
            /// Names and values, for statistics.
            #[must_use]
            pub fn list(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name)),+]
            }

            /// Adds another set to this one.
            pub fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)+
            }
        }
    };
}

counters! {
    /// Calls of recvmsg.
    receive_calls,
    /// Calls of sendmsg.
    send_calls,
    /// Calls of epoll_wait.
    wait_calls,
    bytes_received,
    bytes_sent,
    pdus_received,
    pdus_sent,
    /// Payload bytes that the kernel wrote where they belong.
    bytes_placed_directly,
    /// Payload bytes copied out of the receive buffer.
    bytes_placed_by_copy,
    /// READ payload bytes sent from a store's own memory.
    bytes_sent_from_store,
    /// READ payload bytes copied before they were sent.
    bytes_sent_by_copy,
    reads,
    writes,
    other_commands,
    digest_errors,
    protocol_violations,
    /// Panics that a worker outlived.
    breakdowns,
}
