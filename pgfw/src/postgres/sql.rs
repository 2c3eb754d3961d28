//! Questions to a server over its Unix socket, as its bootstrap superuser by peer. Blocks: not for async code.

use std::time::Duration;

use tokio::runtime::Runtime;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls, Row};

use super::{PostgresError, Running, Server, wire};

/// A session in a maintenance database.
#[derive(Debug)]
pub struct Sql {
    // Before the runtime, so that it goes first.
    client: Client,
    runtime: Runtime,
    cluster: String,
}

impl Sql {
    /// Connects as the server's own user (root is mapped only once our first apply counts), and otherwise as this
    /// process's own.
    ///
    /// # Errors
    /// The server does not run, has no Unix socket, or lets neither in.
    pub fn connect(server: &Server) -> Result<Sql, PostgresError> {
        let running = server.running().ok_or_else(|| PostgresError::NotRunning {
            cluster: server.name.clone(),
        })?;
        Sql::connect_to(server, &running)
    }

    pub(super) fn connect_to(server: &Server, running: &Running) -> Result<Sql, PostgresError> {
        let socket = running.socket().ok_or_else(|| PostgresError::NoSocket {
            cluster: server.name.clone(),
        })?;
        let refused = |message: String| PostgresError::Query {
            cluster: server.name.clone(),
            message,
        };
        // The kernel notes the peer's credentials at connect(2), so the descriptor keeps the owner's.
        let stream = server
            .owner
            .act(|| wire::connect_unix(&socket))
            .or_else(|_| wire::connect_unix(&socket))
            .map_err(|e| refused(format!("{}: {e}", socket.display())))?;
        stream.set_nonblocking(true).map_err(|e| refused(e.to_string()))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| refused(e.to_string()))?;
        let mut config = tokio_postgres::Config::new();
        config
            .user(&server.owner.name)
            .dbname("postgres")
            .application_name("pgfw");
        let connect = async {
            let stream = tokio::net::UnixStream::from_std(stream).map_err(|e| e.to_string())?;
            let connected = tokio::time::timeout(TIMEOUT, config.connect_raw(stream, NoTls)).await;
            connected
                .map_err(|_| "no answer to the login".to_owned())?
                .map_err(|e| said(&e))
        };
        let (client, connection) = runtime.block_on(connect).map_err(refused)?;
        runtime.spawn(async move {
            // How it ends shows in the queries.
            let _ended = connection.await;
        });
        Ok(Sql {
            client,
            runtime,
            cluster: server.name.clone(),
        })
    }

    pub(super) fn query(
        &self,
        text: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, PostgresError> {
        let query = async { tokio::time::timeout(TIMEOUT, self.client.query(text, values)).await };
        match self.runtime.block_on(query) {
            Ok(Ok(rows)) => Ok(rows),
            Ok(Err(e)) => Err(self.refused(said(&e))),
            Err(_) => Err(self.refused("no answer to a query".to_owned())),
        }
    }

    /// The first column of each row, as text; NULL is left out.
    pub(super) fn column(
        &self,
        text: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<String>, PostgresError> {
        let rows = self.query(text, values)?;
        Ok(rows
            .iter()
            .filter_map(|r| r.get::<_, Option<String>>(0))
            .collect())
    }

    fn refused(&self, message: String) -> PostgresError {
        PostgresError::Query {
            cluster: self.cluster.clone(),
            message,
        }
    }
}

const TIMEOUT: Duration = Duration::from_secs(5);

/// The server's own words where it said any: tokio-postgres's are "db error".
fn said(error: &tokio_postgres::Error) -> String {
    error
        .as_db_error()
        .map_or_else(|| error.to_string(), |e| e.message().to_owned())
}
