from tests.support.servers import clean_environment, free_port, manage


def test_a_database_that_cannot_be_reached_is_one_line_without_the_password() -> None:
    url = f"postgresql://totoro:hunter2@127.0.0.1:{free_port()}/totoro"
    environment = {**clean_environment(), "DJANGO_SECRET_KEY": "only-for-this-test"}

    process = manage("migrate", environment={**environment, "DATABASE_URL": url}, check=False)

    assert process.returncode == 1
    assert process.stderr.startswith("CommandError: DATABASE_URL: connection failed: ")
    assert process.stderr.count("\n") == 1
    assert "hunter2" not in process.stderr
