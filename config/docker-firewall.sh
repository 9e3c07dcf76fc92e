#!/bin/sh
# Firewall rules of a Docker host for docker-compose.yml: no container of the relay reaches the host's own ports, the api
# role opens no connection, and the push role reaches no private network. Run it as root, after Docker, at each start of the
# host; it may run again at any time. Variables:
#   COMPANY_NETWORKS   more networks that the push role must not reach, e.g. "198.51.100.0/24"
#   RESOLVERS          DNS servers of the host that the push role may ask; default: those of resolv.conf
#   PROXY              "ADDRESS PORT" of the proxy of [network] in relay.toml, if it is in such a network
set -eu

ALL=172.30.240.0/24       # all networks of docker-compose.yml
CLIENTS=172.30.240.16/28  # the api role
INTERNET=172.30.240.48/28 # the push role
PRIVATE="10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 100.64.0.0/10 169.254.0.0/16"

if [ -z "${RESOLVERS:-}" ]; then
    for file in /run/systemd/resolve/resolv.conf /etc/resolv.conf; do
        [ -r "$file" ] || continue
        RESOLVERS=$(sed -n 's/^nameserver \([0-9.]*\)$/\1/p' "$file" | grep -v '^127\.' || true)
        break
    done
fi

# A chain of our own, emptied and filled.
chain() {
    iptables -w -N "$1" 2> /dev/null || iptables -w -F "$1"
    iptables -w -C "$2" -s "$ALL" -j "$1" 2> /dev/null || iptables -w -I "$2" -s "$ALL" -j "$1"
    # Answers to what somebody else began.
    iptables -w -A "$1" -m conntrack --ctstate ESTABLISHED,RELATED -j RETURN
}

# From containers to the host itself.
chain RELAY-HOST INPUT
iptables -w -A RELAY-HOST -j REJECT

# From containers to everything behind the host. DOCKER-USER is the chain that Docker leaves to administrators.
chain RELAY-WAYS DOCKER-USER
iptables -w -A RELAY-WAYS -s "$CLIENTS" -j REJECT
for resolver in ${RESOLVERS:-}; do
    iptables -w -A RELAY-WAYS -s "$INTERNET" -d "$resolver" -p udp --dport 53 -j RETURN
    iptables -w -A RELAY-WAYS -s "$INTERNET" -d "$resolver" -p tcp --dport 53 -j RETURN
done
if [ -n "${PROXY:-}" ]; then
    iptables -w -A RELAY-WAYS -s "$INTERNET" -d "${PROXY% *}" -p tcp --dport "${PROXY#* }" -j RETURN
fi
for network in $PRIVATE ${COMPANY_NETWORKS:-}; do
    iptables -w -A RELAY-WAYS -s "$INTERNET" -d "$network" -j REJECT
done
