# Pretrained models: the text-to-image model, encoders, face embedding, concept reader. Shipped ones are verified by
# their hashes; those of a hub are fetched at a pinned revision.


localrules:
    fetch_weights,


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
