//! Errors of a real server, whether they leave a commit in doubt, and what they advise.

use rota_store::Error;
use rota_testkit::postgres::PostgresServer;

use crate::Target;
use crate::errors::Fault;
use crate::session::Session;

#[tokio::test]
async fn errors_that_end_the_session_are_lost() {
    let server = PostgresServer::shared();
    let open = async |database: &str| {
        Session::open(&Target::parse(&server.url(database), None).unwrap(), "test").await
    };
    // FATAL, with a code that is not of a connection.
    let fatal = open("missing").await.unwrap_err();
    assert_eq!(fatal.code().map(tokio_postgres::error::SqlState::code), Some("3D000"));
    assert!(fatal.is_lost(), "{fatal:?}");
    let refused: Fault =
        open("postgres").await.unwrap().client.query("SELECT 1 / 0", &[]).await.unwrap_err().into();
    assert!(!refused.is_lost(), "{refused:?}");
}

#[tokio::test]
async fn read_only_database_names_the_primary() {
    let server = PostgresServer::shared();
    let target = Target::parse(&server.url("postgres"), None).unwrap();
    let session = Session::open(&target, "test").await.unwrap();
    let refused = session.client.batch_execute("BEGIN READ ONLY; CREATE TABLE unwritten ()").await;
    let refused: Fault = refused.unwrap_err().into();
    assert!(!refused.is_lost(), "{refused:?}");
    let error = refused.into_error();
    let Error::Unavailable { message, hint } = &error else { panic!("{error:?}") };
    assert!(
        message.contains("25006")
            && hint.contains("name the primary")
            && hint.contains("until the standby is promoted"),
        "{error:?}"
    );
}
