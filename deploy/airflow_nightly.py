"""The nightly batch as an Airflow 3 DAG: submits the job to a Ray cluster and reads its exit code.

Needs `ray[default]` of the cluster's version beside Airflow, and in the worker's environment
RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH. The cluster's nodes read the pseudonyms' key from AWS
Secrets Manager, as in cluster.yaml. Copy this file into the DAGs folder.
"""

import time
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from airflow.exceptions import AirflowException, AirflowFailException
from airflow.sdk import dag, get_current_context, task

JOB_SERVER = "http://127.0.0.1:8265"  # the cluster's, by an SSH tunnel or inside its network
WORKING_DIR = "/opt/implant-inference"
COMMAND = (
    "python -m jobs.classify s3://pacs/2026/ --output s3://registry/implants --model models/phantom"
    " --gpus-per-actor 1 --actors 1:2 --max-rejected 0.05"
)
KEY_FILE = (  # without it identifiers are dropped, and no audit can join
    "aws-secretsmanager:arn:aws:secretsmanager:eu-central-1:123456789012:secret:implant-key"
)
POLL_S = 30
OK, BUSY = 0, 75


@dag(
    schedule="15 22 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=ZoneInfo("Europe/Berlin")),
    catchup=False,  # one run does what all missed ones would have done
    max_active_runs=1,
    tags=["implant-inference"],
)
def implant_nightly() -> None:
    """One task: the job is one command, and resumes by itself."""

    @task(
        retries=3,
        retry_delay=timedelta(minutes=30),  # while another run holds the output
        execution_timeout=timedelta(hours=22),  # over before the next night begins
    )
    def classify() -> None:
        from ray.job_submission import JobStatus, JobSubmissionClient

        run = get_current_context()["ti"]
        client = JobSubmissionClient(JOB_SERVER)
        job = client.submit_job(
            entrypoint=COMMAND,
            submission_id=f"implant-{run.run_id}-{run.try_number}".replace(":", "-"),
            runtime_env={
                "working_dir": WORKING_DIR,
                "env_vars": {"IMPLANT_KEY_FILE": KEY_FILE},
            },
        )
        try:
            while client.get_job_status(job) in (JobStatus.PENDING, JobStatus.RUNNING):
                time.sleep(POLL_S)
        except BaseException:
            client.stop_job(job)
            raise
        code = client.get_job_info(job).driver_exit_code
        if code == BUSY:
            raise AirflowException("Another run holds the output; this one tries again.")
        if code != OK:
            raise AirflowFailException(f"classify ended with exit code {code}; read the job's log.")

    classify()


implant_nightly()
