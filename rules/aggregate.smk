# Per run to tidy results and tables. Cheap: one process each.


localrules:
    aggregate_results,
    aggregate_ablations,
    render_table,
    headline,


rule aggregate_results:
    input:
        bias=per_run("bias", evaluated(PAPER)),
        classified=per_run("classified", evaluated(PAPER)),
        quality=quality_of(PAPER),
    output:
        results="results/{preset}/results.parquet",
    log:
        "results/{preset}/logs/aggregate_results.log",
    benchmark:
        "results/{preset}/benchmarks/aggregate_results.tsv"
    conda:
        "../envs/distalign.yaml"
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        spec=Spec(read=STUDY.read()),
        version=STAGES["results"],
    message:
        "Tidy results of all runs"
    script:
        "../workflow_scripts/aggregate_results.py"


use rule aggregate_results as aggregate_ablations with:
    input:
        bias=per_run("bias", evaluated(ABLATIONS)),
        classified=per_run("classified", evaluated(ABLATIONS)),
        quality=quality_of([table for table in ABLATIONS if shows_quality(table)]),
    output:
        results="results/{preset}/ablations.parquet",
    log:
        "results/{preset}/logs/aggregate_ablations.log",
    benchmark:
        "results/{preset}/benchmarks/aggregate_ablations.tsv"
    message:
        "Tidy results of the ablations' runs"


rule render_table:
    input:
        bias=lambda job: per_run("bias", evaluated([job.table])),
        classified=lambda job: per_run("classified", evaluated([job.table])),
        quality=lambda job: quality_of([job.table]) if shows_quality(job.table) else [],
        costs=lambda job: per_run("cost", evaluated([job.table])) if shows_costs(job.table) else [],
        train_logs=lambda job: logs_of(job.table) if SECONDS in STUDY.tables[job.table].columns else [],
    output:
        parquet="results/{preset}/tables/{table}.parquet",
        csv="results/{preset}/tables/{table}.csv",
        md="results/{preset}/tables/{table}.md",
        tex="results/{preset}/tables/{table}.tex",
        txt="results/{preset}/tables/{table}.txt",
        html=report(
            "results/{preset}/tables/{table}.html",
            caption="../report/table.rst",
            category="Tables",
            labels={"table": "{table}"},
        ),
    log:
        "results/{preset}/logs/render_table/{table}.log",
    benchmark:
        "results/{preset}/benchmarks/render_table/{table}.tsv"
    conda:
        "../envs/distalign.yaml"
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        spec=lambda job: Spec(STUDY.table_spec(job.table), read=STUDY.read()),
        version=STAGES["tables"],
    message:
        "Table {wildcards.table}"
    script:
        "../workflow_scripts/render_table.py"


rule headline:
    input:
        tables=table_files(HEADLINE),
        figures=figure_files(headline_figures()),
    log:
        f"results/{PRESET}/logs/headline.log",
    conda:
        "../envs/distalign.yaml"
    params:
        tables=expand("results/{p}/tables/{t}.txt", p=PRESET, t=HEADLINE),
        pictures=expand("results/{p}/figures/{f}.png", p=PRESET, f=headline_figures()),
    message:
        "The headline"
    shell:
        "(cat {params.tables:q}; echo; printf 'picture: %s\\n' {params.pictures:q}) | tee {log:q}"
