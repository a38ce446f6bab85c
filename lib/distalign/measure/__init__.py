"""From predictions per image to bias and similarity per prompt and per run, with floors and confidence intervals."""
