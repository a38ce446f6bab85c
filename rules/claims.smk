# What of the paper's claims (resources/claims.yaml) holds here, decided by the runs its tables show.
from distalign.config.claims import studies_of, trainings


localrules:
    check_claims,


CLAIMS = STUDY.claims_spec([(run, evaluation) for run, _, evaluation in evaluated(PAPER)])
CLAIM_LOGS = [
    f"results/{PRESET}/runs/{run}/{seed}/train_log.parquet"
    for run, seed in dict.fromkeys((run, seed) for run, seed, _ in evaluated(PAPER))
    if run in trainings(CLAIMS)
]
CLAIM_FILES = expand("results/{p}/claims.{f}", p=PRESET, f=["parquet", "md", "html"])


rule check_claims:
    input:
        results="results/{preset}/results.parquet",
        train_logs=CLAIM_LOGS,
        studies=expand("results/{{preset}}/gradient_studies/{s}.parquet", s=studies_of(CLAIMS)),
    output:
        parquet="results/{preset}/claims.parquet",
        md="results/{preset}/claims.md",
        html=report(
            "results/{preset}/claims.html",
            caption="../report/claims.rst",
            category="Claims",
            labels={"claims": "all"},
        ),
    log:
        "results/{preset}/logs/check_claims.log",
    benchmark:
        "results/{preset}/benchmarks/check_claims.tsv"
    conda:
        "../envs/distalign.yaml"
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        spec=Spec(CLAIMS),
        version=STAGES["claims"],
    message:
        "Claims of the paper"
    script:
        "../workflow_scripts/check_claims.py"
