# Pictures of runs: training curves, frequency bars, contact sheets, trade-offs, sweeps.


localrules:
    plot_figure,


rule plot_figure:
    input:
        train_logs=lambda job: train_logs(job.figure),
        images=lambda job: per_figure("images", job.figure),
        classified=lambda job: per_figure("classified", job.figure),
        bias=lambda job: per_figure("bias", job.figure),
        quality=lambda job: per_figure("quality", job.figure) if figure_shows_quality(job.figure) else [],
    output:
        pdf="results/{preset}/figures/{figure}.pdf",
        png="results/{preset}/figures/{figure}.png",
        parquet="results/{preset}/figures/{figure}.parquet",
        svg=report(
            "results/{preset}/figures/{figure}.svg",
            caption="../report/figure.rst",
            category="Figures",
            labels={"figure": "{figure}"},
        ),
    log:
        "results/{preset}/logs/plot_figure/{figure}.log",
    benchmark:
        "results/{preset}/benchmarks/plot_figure/{figure}.tsv"
    conda:
        "../envs/distalign.yaml"
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        spec=lambda job: Spec(STUDY.figure_spec(job.figure), read=STUDY.read()),
        version=STAGES["figures"],
    message:
        "Figure {wildcards.figure}"
    script:
        "../workflow_scripts/plot_figure.py"
