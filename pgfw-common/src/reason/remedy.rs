//! What somebody does who meets a reason and expected something else.

use super::Reason;

impl Reason {
    /// One sentence or two for people: what to do about it.
    pub const fn remedy(self) -> &'static str {
        match self {
            Reason::Unenforced => {
                "Nothing is filtered: `pgfw status` says why, `pgfw reload` or the start of the service brings the policy."
            }
            Reason::Arp
            | Reason::NeighbourDiscovery
            | Reason::MulticastListener
            | Reason::GroupMembership => {
                "Nothing: the host needs these to stay on its network, whatever the policy."
            }
            Reason::LinkLayer => "Nothing; `firewall.link_layer` lists what passes here.",
            Reason::DhcpClient => {
                "Nothing; where addresses are static, `firewall.dhcp_client = false` closes this."
            }
            Reason::IcmpError => "Nothing: path MTU discovery and quick errors depend on it.",
            Reason::Service => {
                "Nothing; `pgfw check SOURCE --port PORT` names the entry that opens it, `pgfw deny` closes it."
            }
            Reason::Established => {
                "Nothing; `pgfw deny NETWORK` or `pgfw remove NETWORK --cut` ends such a connection."
            }
            Reason::SynCookie => {
                "Nothing, unless it is frequent: then the host is under a SYN flood, or a listener's backlog is too short."
            }
            Reason::Answer | Reason::EchoReply => "Nothing: this host asked.",
            Reason::EchoRequest => "Nothing; `firewall.echo` says what becomes of pings.",
            Reason::Fragment => "Nothing: it belongs to a datagram that was admitted.",
            Reason::EmptySlot => {
                "Pins were removed or damaged: restart pgfw, which loads the confirmed policy again; `pgfw off` opens the host."
            }
            Reason::EthernetTruncated
            | Reason::Ipv4Truncated
            | Reason::Ipv6Truncated
            | Reason::ExtensionTruncated
            | Reason::TcpTruncated
            | Reason::UdpTruncated
            | Reason::IcmpTruncated => {
                "No honest stack sends it: look at the bytes with `pgfw events --hex`; a scanner, a broken NIC or tunnel."
            }
            Reason::VlanTruncated => "No honest switch sends it: look at the bytes with `pgfw events --hex`.",
            Reason::VlanDepth => {
                "Have the switch send this host at most two tags; three are never unpacked here."
            }
            Reason::EtherType => {
                "Mostly noise of a switch. If the host needs the protocol, list its EtherType in `firewall.link_layer`."
            }
            Reason::Llc => {
                "Mostly noise of a switch. A host that takes part in spanning tree lists `stp` in `firewall.link_layer`."
            }
            Reason::Ipv4Version
            | Reason::Ipv4HeaderLength
            | Reason::Ipv4TotalLength
            | Reason::Ipv6Version
            | Reason::Ipv6PayloadLength
            | Reason::TcpOffset
            | Reason::UdpLength => {
                "No honest stack sends it: look at the sender with `pgfw events`; the host's own stack would drop it too."
            }
            Reason::ExtensionChain => {
                "No ordinary sender builds such a chain; it is a way around filters that stop reading early."
            }
            Reason::SourceMulticast
            | Reason::SourceBroadcast
            | Reason::SourceLoopback
            | Reason::SourceMapped => {
                "The source is forged, or a neighbour is misconfigured: its hardware address is in `pgfw events --hex`."
            }
            Reason::SourceUnspecified => {
                "A neighbour without an address, such as a DHCP client, or a forged source; no service answers it."
            }
            Reason::TcpFlags => "A scan: look at the sender with `pgfw events --reason tcp-flags`.",
            Reason::ServiceDenied => {
                "If it should be let in: `pgfw list` shows the deny and who made it, `pgfw remove NETWORK` takes one of the command line back."
            }
            Reason::ServiceClosed => {
                "If it should be let in: `pgfw allow NETWORK`, or issue the identity whose network it is a certificate; `pgfw check SOURCE` says what covers it."
            }
            Reason::NewTcp => {
                "If something is to be reached there: add a `[[service]]` with this port; otherwise a scan, or a client with a wrong port."
            }
            Reason::NoConnection => {
                "A scan, or the rest of a connection that has ended. If many: routing that sends a flow's two directions different ways, or a namespace whose flows need `forwarded = \"track\"`."
            }
            Reason::Udp => {
                "If something is to be reached there: add a `[[service]]` with `protocol = \"udp\"`. An answer comes in only within 30 seconds (120 in a conversation)."
            }
            Reason::EchoRequestRefused => {
                "If the host should answer pings: `firewall.echo = \"limit\"` or \"accept\"."
            }
            Reason::EchoReplyUnasked => "Backscatter of pings with a forged source; nothing to do here.",
            Reason::IcmpType => "Nothing: timestamps, address masks and the like are no longer used.",
            Reason::IcmpRedirect => {
                "Set the host's routes right; redirects let a neighbour take its traffic over."
            }
            Reason::IcmpErrorUnrelated => {
                "Backscatter or an attempt to disturb connections (RFC 5927); nothing to do here."
            }
            Reason::NeighbourInvalid => {
                "Somebody beyond a router plays neighbour, or a device is broken: look at the sender with `pgfw events --hex`."
            }
            Reason::MulticastListenerSource => {
                "A neighbour without a link-local address sends MLD: mend its addresses."
            }
            Reason::Protocol => {
                "If the host needs it (VRRP, ESP, GRE …): add a `[[service]]` with this `protocol`."
            }
            Reason::FragmentUnknown => {
                "If datagrams of an allowed flow are lost: fragments come out of order or over several interfaces; lower the sender's MTU. From strangers: nothing."
            }
            Reason::GateLimit => {
                "If it is frequent the gate is being flooded: leases that were granted go on; narrow `gate.allow` to where people come from."
            }
        }
    }
}
