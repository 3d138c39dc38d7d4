//! The slots of a Redis Cluster: which key is in which one, and which servers have it.

use redis::{RedisError, Value};

/// The host and port of a server.
pub(super) type Address = (String, u16);

/// Slots that follow each other, and their servers.
pub(super) struct SlotRange {
    pub(super) first: u16,
    pub(super) last: u16,
    /// The master first.
    pub(super) servers: Vec<Address>,
}

/// Returns the slot of a key: that of what is between its first braces, if it has any.
pub(super) fn slot_of(key: &[u8]) -> u16 {
    /// How many slots a cluster has.
    const SLOTS: u16 = 16_384;
    let tag = || {
        let (_, rest) = key.split_at_checked(key.iter().position(|byte| *byte == b'{')? + 1)?;
        rest.get(..rest.iter().position(|byte| *byte == b'}')?).filter(|tag| !tag.is_empty())
    };
    crc16::State::<crc16::XMODEM>::calculate(tag().unwrap_or(key)) % SLOTS
}

/// Reads the reply of CLUSTER SLOTS.
///
/// * `host` - where it came from: a server that does not know its own name leaves it out
pub(super) fn read_slots(reply: Value, host: &str) -> Result<Vec<SlotRange>, RedisError> {
    let ranges: Vec<Vec<Value>> = redis::from_redis_value(reply)?;
    let mut slots = Vec::with_capacity(ranges.len());
    for range in ranges {
        let mut fields = range.into_iter();
        let (Some(first), Some(last)) = (fields.next(), fields.next()) else { continue };
        let mut servers = Vec::new();
        for server in fields {
            let Value::Array(server) = server else { continue };
            let mut fields = server.into_iter();
            let (Some(name), Some(port)) = (fields.next(), fields.next()) else { continue };
            let name: Option<String> = redis::from_redis_value(name)?;
            let name = name.filter(|name| !name.is_empty() && name != "?").unwrap_or_else(|| host.to_owned());
            servers.push((name, redis::from_redis_value(port)?));
        }
        slots.push(SlotRange { first: redis::from_redis_value(first)?, last: redis::from_redis_value(last)?, servers });
    }
    Ok(slots)
}

/// Parses "host:port" as a redirection has it. The host is left out if it is the one that replied.
pub(super) fn parse_address(text: &str, host: &str) -> Option<Address> {
    let (name, port) = text.rsplit_once(':')?;
    let name = if matches!(name, "" | "?") { host } else { name };
    Some((name.to_owned(), port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_the_slot_of_its_tag() {
        // As CLUSTER KEYSLOT has them.
        for (key, slot) in [("foo", 12_182), ("bar", 5_061), ("{foo}bar", 12_182), ("x{bar}", 5_061)] {
            assert_eq!(slot_of(key.as_bytes()), slot, "{key}");
        }
        assert_eq!(slot_of(b"{}foo"), crc16::State::<crc16::XMODEM>::calculate(b"{}foo") % 16_384);
        assert_eq!(slot_of(b"{foo"), crc16::State::<crc16::XMODEM>::calculate(b"{foo") % 16_384);
    }

    #[test]
    fn a_server_that_leaves_its_host_out_has_the_one_that_was_asked() {
        let server = |host: Value| Value::Array(vec![host, Value::Int(7001)]);
        let range = |host: Value| Value::Array(vec![Value::Int(0), Value::Int(99), server(host)]);
        let hosts = [Value::Nil, Value::BulkString(b"".to_vec()), Value::BulkString(b"b".to_vec())];
        let slots = read_slots(Value::Array(hosts.map(range).to_vec()), "a").expect("slots");
        let servers: Vec<&Address> = slots.iter().flat_map(|range| &range.servers).collect();
        assert_eq!(servers, [&("a".to_owned(), 7001), &("a".to_owned(), 7001), &("b".to_owned(), 7001)]);
        assert_eq!(parse_address(":7001", "a"), Some(("a".to_owned(), 7001)));
        assert_eq!(parse_address("::1:7001", "a"), Some(("::1".to_owned(), 7001)));
    }
}
