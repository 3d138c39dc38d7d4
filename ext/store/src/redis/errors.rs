//! What an operator reads of an error of the client library: what happened, and what to do.

use redis::{ErrorKind, RedisError, ServerErrorKind};

use super::tls;
use super::url::{ENCODING, ServerUrls};
use crate::error::StoreError;

/// Turns an error of the client into one for the operator: permanent if the server refuses the credentials, its
/// certificate is not trusted, or it is no Redis.
pub(super) fn store_error(servers: &ServerUrls, error: &RedisError) -> StoreError {
    // A parser's error has several lines.
    let said = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    let said = servers.without_password(without_arguments(said.trim_end_matches('.')));
    let said = said.as_str();
    if let Some(advice) = advice(servers, error, said) {
        return StoreError::Misconfigured(format!("{servers}: {said}. {advice}"));
    }
    match error.kind() {
        ErrorKind::Parse => StoreError::Misconfigured(format!(
            "{servers}: this is no Redis: {said}. Check the host and the port{}",
            if servers.has_tls() { "" } else { "; if it is one with TLS, write \"rediss://…\"" }
        )),
        ErrorKind::InvalidClientConfig => StoreError::Misconfigured(format!("{servers}: {said}")),
        _ => StoreError::Unavailable(format!("{servers}: {said}")),
    }
}

/// Returns a server's error without the arguments of a command that it does not know: those of AUTH and HELLO have the password.
fn without_arguments(said: &str) -> &str {
    said.split_once(", with args beginning with").map_or(said, |(what, _)| what)
}

/// Turns an error of the client while it connects into one for the operator.
pub(super) fn connect_error(servers: &ServerUrls, error: &RedisError) -> StoreError {
    match (error.kind(), store_error(servers, error)) {
        // The server does not know a command, for example.
        (ErrorKind::Server(ServerErrorKind::ResponseError), StoreError::Unavailable(message)) => {
            StoreError::Misconfigured(message)
        }
        (ErrorKind::Io, StoreError::Unavailable(message)) if !servers.has_tls() && is_hang_up(&message) => {
            StoreError::Unavailable(format!(
                "{message}: the server ends the connection; if it is one with TLS, write \"rediss://…\""
            ))
        }
        (ErrorKind::Io, StoreError::Unavailable(message)) if servers.has_tls() && message.contains("timed out") => {
            StoreError::Unavailable(format!("{message}; {}", tls::NO_ANSWER))
        }
        (_, error) => error,
    }
}

/// Whether the other side closed the connection: a server with TLS does so when it gets a command.
fn is_hang_up(said: &str) -> bool {
    ["reset by peer", "Broken pipe", "broken pipe", "end of file", "Multiplexed connection driver"]
        .iter()
        .any(|text| said.contains(text))
}

/// Says what to do about a permanent error.
fn advice(servers: &ServerUrls, error: &RedisError, said: &str) -> Option<String> {
    let has_code = |code: &str| error.code() == Some(code) || said.contains(code);
    Some(match error.kind() {
        ErrorKind::AuthenticationFailed => wrong_password(),
        _ if has_code("WRONGPASS") || said.contains("AuthenticationFailed") => wrong_password(),
        _ if has_code("NOAUTH") => {
            "Write its password into the URL: redis://:password@host, or redis://user:password@host; for a socket ?pass=…"
                .into()
        }
        _ if error.code() == Some("NOPERM") => {
            "The user needs the commands that README.md lists under \"More than one machine\"".into()
        }
        _ if said.contains("cluster support disabled") => {
            "This is no server of a Redis Cluster: give its URL as a String instead of an Array; on the command line, leave \
             --cluster out"
                .into()
        }
        _ if said.contains("not allowed in cluster mode") => format!(
            "This is one of a Redis Cluster, which has only database 0: leave the database out, and {}",
            super::server::AS_CLUSTER
        ),
        _ if said.contains("DB index is out of range") => format!(
            "The server has no database {}: it has as many as the line `databases` of its configuration says, 16 if there is \
             none: 0 to 15",
            servers.database()
        ),
        _ => return None,
    })
}

fn wrong_password() -> String {
    format!(
        "Check the user and the password; for a server that wants no password, leave it out. In a password, {ENCODING}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_quotes_the_password_shows_it_to_nobody() {
        let servers = ServerUrls::parse(&["redis://ann:s%23cret@h".to_owned()], false).unwrap();
        for said in
            ["unknown command 'AUTH', with args beginning with: 'ann' 's#cret'", "no user has s#cret or s%23cret"]
        {
            let error =
                RedisError::from((ErrorKind::Server(ServerErrorKind::ResponseError), "refused", said.to_owned()));
            let message = connect_error(&servers, &error).to_string();
            assert!(message.contains("refused") && !message.contains("cret"), "{message}");
        }
    }
}
