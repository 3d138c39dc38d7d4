//! What is sent to a Redis server: the call of a script, or a command.

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{Cmd, ErrorKind, RedisError, ServerErrorKind, Value};

use super::scripts::Script;

/// A call of a script.
pub(super) struct Call {
    script: &'static Script,
    keys: Vec<String>,
    arguments: Vec<Vec<u8>>,
}

impl Call {
    pub(super) fn new<'a>(script: &'static Script, keys: impl IntoIterator<Item = &'a str>) -> Call {
        Call { script, keys: keys.into_iter().map(str::to_owned).collect(), arguments: Vec::new() }
    }

    /// Adds an argument.
    pub(super) fn arg(mut self, argument: impl AsRef<[u8]>) -> Call {
        self.arguments.push(argument.as_ref().to_vec());
        self
    }

    /// Adds a number.
    pub(super) fn number(self, argument: impl ToString) -> Call {
        self.arg(argument.to_string())
    }

    /// Builds the command, `EVAL` or `EVALSHA`, with the script's text or hash.
    fn command(&self, name: &str, script: &str) -> Cmd {
        let mut command = redis::cmd(name);
        command.arg(script).arg(self.keys.len()).arg(&self.keys);
        self.arguments.iter().for_each(|argument| {
            command.arg(argument.as_slice());
        });
        command
    }
}

/// What is sent to a server.
#[derive(Clone, Copy)]
pub(super) enum Request<'a> {
    Call(&'a Call),
    Command(&'a Cmd),
}

impl Request<'_> {
    /// The key that says which server of a cluster has it. Commands without a key have no argument either.
    pub(super) fn key(&self) -> Option<&[u8]> {
        match self {
            Request::Call(call) => call.keys.first().map(String::as_bytes),
            Request::Command(command) => match command.args_iter().nth(1)? {
                redis::Arg::Simple(key) => Some(key),
                _ => None,
            },
        }
    }

    /// Sends it, and returns the reply. A script is called by its hash, and by its text if the server does not know it.
    ///
    /// * `is_asking` - whether the server is about to get the key from another one
    pub(super) async fn send(
        self,
        mut connection: MultiplexedConnection,
        is_asking: bool,
    ) -> Result<Value, RedisError> {
        match self {
            Request::Command(command) => request(&mut connection, command, is_asking).await,
            Request::Call(call) => {
                let command = call.command("EVALSHA", &call.script.hash);
                match request(&mut connection, &command, is_asking).await {
                    // The server was started lately, or its scripts were flushed.
                    Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                        request(&mut connection, &call.command("EVAL", call.script.text), is_asking).await
                    }
                    reply => reply,
                }
            }
        }
    }
}

async fn request(connection: &mut MultiplexedConnection, command: &Cmd, is_asking: bool) -> Result<Value, RedisError> {
    let reply = if is_asking {
        let mut pipeline = redis::pipe();
        pipeline.add_command(redis::cmd("ASKING")).add_command(command.clone());
        connection.req_packed_commands(&pipeline, 1, 1).await?.pop().unwrap_or(Value::Nil)
    } else {
        connection.req_packed_command(command).await?
    };
    reply.extract_error()
}
