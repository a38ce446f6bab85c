# Pretrained models: the text-to-image model, encoders, face embedding, concept reader. Shipped ones are verified by
# their hashes; those of a hub are fetched at a pinned revision. `snakemake fetch` fetches all of these and nothing else:
# after it, no job needs a network.


localrules:
    fetch,
    fetch_weights,


rule fetch:
    input:
        expand("results/{p}/{place}", p=PRESET, place=[it for it in WEIGHTS if WEIGHTS[it].source == "hub"]),
        expand("results/{p}/classifiers/{c}/card.md", p=PRESET, c=FETCHED_CLASSIFIERS),


rule fetch_weights:
    output:
        model=directory("results/{preset}/{place}"),
    log:
        "results/{preset}/logs/fetch_weights/{place}.log",
    benchmark:
        "results/{preset}/benchmarks/fetch_weights/{place}.tsv"
    wildcard_constraints:
        place=one_of(WEIGHTS),
    conda:
        "../envs/distalign.yaml"
    resources:
        mem_mb=1000,
        runtime=120,
    params:
        spec=lambda job: weights_spec(WEIGHTS[job.place]),
        version=STAGES["backbone"],
    message:
        "Weights of {wildcards.place}"
    script:
        "../workflow_scripts/fetch_weights.py"
