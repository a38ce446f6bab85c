# Pages of the report (`make report`): classifier cards to read, and where the results come from.


localrules:
    render_card,
    render_provenance,


rule render_card:
    input:
        card="results/{preset}/classifiers/{classifier}/card.md",
    output:
        html=report(
            "results/{preset}/report/classifier_{classifier}.html",
            caption="../report/classifier.rst",
            category="Classifiers",
            labels={"classifier": "{classifier}"},
        ),
    log:
        "results/{preset}/logs/render_card/{classifier}.log",
    benchmark:
        "results/{preset}/benchmarks/render_card/{classifier}.tsv"
    conda:
        "../envs/distalign.yaml"
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        version=STAGES["report"],
    message:
        "Card of classifier {wildcards.classifier}, to read"
    script:
        "../workflow_scripts/render_card.py"


rule render_provenance:
    input:
        parquet=[
            f"results/{PRESET}/results.parquet",
            *per_run("images", evaluated(PAPER)),
            *per_run("classified", evaluated(PAPER)),
            *per_run("bias", evaluated(PAPER)),
            *expand("results/{p}/tables/{t}.parquet", p=PRESET, t=PAPER),
            *expand("results/{p}/figures/{f}.parquet", p=PRESET, f=PAPER_FIGURES),
        ],
        adapters=run_provenance(),
    output:
        html=report(
            "results/{preset}/report/provenance.html",
            caption="../report/provenance.rst",
            category="Provenance",
            labels={"page": "code, packages, settings"},
        ),
    log:
        "results/{preset}/logs/render_provenance.log",
    benchmark:
        "results/{preset}/benchmarks/render_provenance.tsv"
    conda:
        "../envs/distalign.yaml"
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        version=STAGES["report"],
    message:
        "Where the results come from"
    script:
        "../workflow_scripts/render_provenance.py"
