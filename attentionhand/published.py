"""The figures of the paper's tables "text-to-hand image generation" and "visual attention stage".

Read off the pictures of the tables on the authors' project page. How MSE-2D and MSE-3D are defined stands in no source
at hand.
"""

PUBLISHED_COLUMNS = ("FID ↓", "KID ↓", "FID-H ↓", "KID-H ↓", "Hand Conf. ↑", "MSE-2D ↓", "MSE-3D ↓")

PUBLISHED = {  # by our row's folder, or the method's name where it is in no library
    "base": ("40.52", "0.00684", "50.78", "0.02554", "0.651", "2.932", "4.591"),
    "Uni-ControlNet": ("30.34", "0.00744", "37.77", "0.02004", "0.855", "2.105", "3.039"),
    "t2i_adapter": ("22.00", "0.00761", "32.08", "0.01568", "0.914", "1.546", "2.451"),
    "controlnet": ("21.67", "0.00658", "40.32", "0.02098", "0.810", "1.252", "2.182"),
    "without_tas": ("21.27", "0.00331", "28.56", "0.01390", "0.955", "1.211", "2.042"),
    "attentionhand": ("20.71", "0.00301", "27.09", "0.01287", "0.965", "1.026", "1.986"),
    "local_only": ("52.98", "0.00713", "32.11", "0.01604", "0.911", "1.539", "2.397"),
    "separate_weights": ("21.90", "0.00293", "26.89", "0.01340", "0.960", "1.108", "2.017"),
}
METHODS = ("base", "Uni-ControlNet", "t2i_adapter", "controlnet", "without_tas", "attentionhand")
VIEWS = ("base", "controlnet", "local_only", "attentionhand", "separate_weights")
USER_PREFERENCE = {  # in percent, of the first table only; the size of the study is not known
    "base": "5.864",
    "Uni-ControlNet": "8.796",
    "t2i_adapter": "19.676",
    "controlnet": "7.948",
    "without_tas": "20.734",
    "attentionhand": "36.905",
}
