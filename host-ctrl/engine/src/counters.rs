//! Every counter of the control plane, with the name that operators see.

macro_rules! counters {
    ($($(#[doc = $doc:literal])* $name:ident,)*) => {
        /// Counts since the start.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[doc = $doc])* pub $name: u64,)*
        }

        impl Counters {
            /// (name, value, explanation) of each.
            pub fn all(&self) -> impl Iterator<Item = (&'static str, u64, &'static str)> {
                [$((stringify!($name), self.$name, concat!($($doc),*)),)*].into_iter()
            }
        }
    };
}

counters! {
    /// Exception frames received.
    frames,
    /// Frames sent.
    transmitted,
    /// Frames injected into flows after their set-up.
    injected,
    /// Frames of a flow that reached us after its set-up and were injected late.
    injected_late,
    /// Dropped: malformed, or a checksum was wrong.
    drop_malformed,
    /// Dropped: not addressed to an address of the card.
    drop_not_ours,
    /// Dropped: a source address that no host can have.
    drop_bad_source,
    /// Dropped: fragments that overlap, come twice or cannot be.
    drop_fragment,
    /// Dropped: neither ARP nor IP, or of another VLAN.
    drop_ethertype,
    /// Dropped: a transport protocol that is not served.
    drop_protocol,
    /// Dropped: a frame of a connection being installed, over the bound of frames or bytes kept.
    drop_held_full,
    /// Dropped: repetitions of the handshake while the connection is being installed.
    drop_held_repeat,
    /// Dropped: a frame of a flow that the card should know.
    drop_stale,
    /// Dropped: segments that a handshake cannot use.
    drop_unacceptable,
    /// Dropped: RST not in sequence, or for no connection.
    drop_rst,
    /// Dropped: SYNs from where no route leads.
    drop_no_route,
    /// SYNs received for a listener.
    syn_received,
    /// SYNs dropped because the accept queue is full.
    syn_drop_accept_full,
    /// SYNs dropped because the table of connections is full.
    syn_drop_table_full,
    /// Half-open connections recycled for newer ones.
    syn_recycled,
    /// SYN-ACKs sent with a cookie.
    syn_cookies_sent,
    /// ACKs that brought a cookie back.
    syn_cookies_valid,
    /// ACKs without a cookie, or with an old one, to a listener while cookies were out.
    syn_cookies_invalid,
    /// Final ACKs dropped because the accept queue is full.
    ack_drop_accept_full,
    /// Final ACKs without data dropped: the listener waits for data.
    ack_deferred,
    /// SYN-ACKs sent, repetitions included.
    syn_acks_sent,
    /// SYNs sent, repetitions included.
    syns_sent,
    /// Handshakes given up: no answer.
    handshake_timeouts,
    /// Connections established that the peer opened.
    passive_opens,
    /// Connections established that an application opened.
    active_opens,
    /// Active opens that failed.
    active_failed,
    /// Connections that could not be installed on the card.
    install_failed,
    /// SYN-ACKs, cookies, challenge ACKs, RSTs and answers of ICMP not sent: no route leads there, or its router has not answered yet.
    answers_unresolved,
    /// RSTs sent.
    rsts_sent,
    /// RSTs not sent: over the limit.
    rsts_limited,
    /// Challenge ACKs sent (RFC 5961).
    challenge_acks,
    /// Challenge ACKs, and SYN-ACKs once more, not sent: the connection has just answered.
    challenge_limited,
    /// Handshake segments dropped by PAWS.
    drop_paws,
    /// Connections that entered TIME-WAIT.
    time_waits,
    /// TIME-WAIT entries that made room for newer ones.
    time_wait_evicted,
    /// TIME-WAIT entries taken over by a peer's new SYN (RFC 6191) or by connect().
    time_wait_reused,
    /// RSTs ignored in TIME-WAIT (RFC 1337).
    time_wait_rsts,
    /// Orphans ended because they made no progress, mostly in FIN-WAIT-2.
    fin_wait2_timeouts,
    /// ARP requests sent.
    arp_requests_sent,
    /// ARP replies sent.
    arp_replies_sent,
    /// ARP packets received.
    arp_received,
    /// ARP packets ignored: malformed, or from impossible addresses.
    arp_ignored,
    /// ARP packets that claim an address of ours.
    arp_conflicts,
    /// Next hops that did not answer.
    arp_failures,
    /// Routers that did not answer any more, whose connections go through another one since.
    router_failovers,
    /// Neighbours refused or evicted because the next-hop table is full.
    arp_table_full,
    /// Neighbour solicitations sent.
    nd_solicitations_sent,
    /// Neighbour advertisements sent.
    nd_advertisements_sent,
    /// Messages of neighbour discovery received.
    nd_received,
    /// Messages of neighbour discovery ignored: malformed, from impossible addresses, or not about us.
    nd_ignored,
    /// Messages of neighbour discovery that claim an address of ours.
    nd_conflicts,
    /// Questions which multicast groups we listen to (MLD).
    mld_queries,
    /// Reports of multicast groups sent (MLD).
    mld_reports_sent,
    /// Router solicitations sent.
    router_solicitations_sent,
    /// Router advertisements taken.
    router_advertisements,
    /// Routes and prefixes of router advertisements not taken: too many.
    routes_refused,
    /// Addresses that somebody else has.
    addresses_duplicate,
    /// Addresses not made: too many.
    addresses_refused,
    /// ICMP echo requests answered.
    icmp_echoes,
    /// ICMP messages sent about errors.
    icmp_errors_sent,
    /// ICMP messages not sent: over the limit, or too large.
    icmp_limited,
    /// ICMP errors about connections not heeded: over the limit.
    icmp_errors_limited,
    /// ICMP errors received about our connections.
    icmp_errors_received,
    /// ICMP messages ignored.
    icmp_ignored,
    /// Fragments received.
    fragments,
    /// Packets put together of fragments.
    reassembled,
    /// Packets of which not all fragments came in time, or for which there was no room.
    reassembly_failed,
    /// Times that a connection found out that its path takes less than it thought.
    path_mtus_learnt,
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_are_unique_and_explained() {
        let all: Vec<_> = super::Counters::default().all().collect();
        let names: std::collections::HashSet<_> = all.iter().map(|c| c.0).collect();
        assert_eq!(names.len(), all.len());
        assert!(all.iter().all(|c| c.2.trim().len() > 5));
    }
}
