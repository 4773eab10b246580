"""The trained systems of the paper: data, model and training put together, one file each."""

RECIPES = {  # checkpoint: where the function is that makes it, called with seed and out (a folder or None)
    "slim_vgg": "crossexplain.recipes.clutter:make",
    "reviews_minilm": "crossexplain.recipes.reviews:make",
    "collages": "crossexplain.recipes.collages:make",
    "collages_mnist": "crossexplain.recipes.collages:make_mnist",
    "pure_shortcut": "crossexplain.recipes.controls:make_suspects",
    "scenes_fusion": "crossexplain.recipes.scenes:make_fusion",
    "scenes_clip_vit": "crossexplain.recipes.scenes:make_clip_vit",
    "scenes_clip_cnn": "crossexplain.recipes.scenes:make_clip_cnn",
    "flickr8k_fusion": "crossexplain.recipes.flickr8k:make_fusion",
    "flickr8k_clip_cnn": "crossexplain.recipes.flickr8k:make_clip_cnn",
}
